"""Media files that are broken, odd, or meant to do harm, for `experiments.hostile`.

Written by what the tests write theirs with (`tests.videos`).
"""

import io
import os
import struct
import wave
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from experiments.hostile_folders import content
from tests.videos import damage, moving, rotate, tones, write_video

HOUR_S = 3600.0
LONG_S = 1200  # what is read of black pictures; the next is refused by its header
# File names, and what they would do in a shell, a page or a terminal.
NAMES = (
    b"two  spaces.mp4",
    b"\"quotes\" and 'quotes'.mp4",
    b"$(touch owned).mp4",
    b"; touch owned;.mp4",
    b"new\nline.mp4",
    b"-dash.mp4",
    b"bytes \xff\xfe.mp4",
    b"<script>alert(1)<script>.mp4",
    b"\x1b[2Jescape.mp4",
    b"%s %03d {0}.mp4",
)


def black(_: float, height: int, width: int) -> np.ndarray:
    """A picture for `write_video`."""
    return np.zeros((height, width, 3), np.uint8)


def png_of(side: int) -> bytes:
    """A PNG of side x side pixels of black, in few bytes."""
    packer = zlib.compressobj(1)
    rows = [packer.compress(bytes(1 + side)) for _ in range(side)] + [packer.flush()]
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)  # 8 bits of grey
    picture = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", b"".join(rows)), (b"IEND", b"")):
        checksum = zlib.crc32(kind + data)
        picture += struct.pack(">I", len(data)) + kind + data
        picture += struct.pack(">I", checksum)
    return picture


def huge_bomb(path: Path) -> None:
    """One picture of 16,000 x 16,000, in 250 KB; FFmpeg takes no larger ones."""
    picture = png_of(16_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for second in range(3):
            packet = av.Packet(picture)
            packet.stream, packet.time_base = stream, Fraction(1)
            packet.pts = packet.dts = second
            packet.is_keyframe = True
            container.mux(packet)


def huge_by_header(path: Path) -> None:
    """A Matroska file that says its pictures are of 20,000 x 20,000."""
    write_video(path, width=320, height=320)
    data = path.read_bytes()
    small, large = (n.to_bytes(2, "big") for n in (320, 20_000))
    for element in (b"\xb0\x82", b"\xba\x82"):  # PixelWidth, PixelHeight
        assert data.count(element + small) == 1
        data = data.replace(element + small, element + large)
    path.write_bytes(data)


def huge_by_picture(path: Path) -> None:
    """JPEGs that say 20,000 x 20,000 in a file that says 320 x 240."""
    jpeg: dict[str, Any] = {"video_codec": "mjpeg", "pix_fmt": "yuvj420p"}
    write_video(path, width=320, height=240, **jpeg)
    data = path.read_bytes()
    sizes = [
        b"".join(n.to_bytes(2, "big") for n in s) for s in ((240, 320), (20_000,) * 2)
    ]
    frame = b"\xff\xc0\x00\x11\x08"
    assert frame + sizes[0] in data
    path.write_bytes(data.replace(frame + sizes[0], frame + sizes[1]))


def without_index(path: Path) -> None:
    """An mp4 whose copying was broken off: its index is at its end."""
    write_video(path, picture=moving)
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])


def damaged(path: Path) -> None:
    """Noise in place of 4,000 bytes in its middle."""
    damage(write_video(path, seconds=8, picture=moving), at=0.45)


def rotated(path: Path) -> None:
    """A quarter turn in the header."""
    rotate(write_video(path))


def with_numbers_that_are_none(path: Path) -> None:
    """NaN in the second second of the sound."""
    sound = tones(3, 24_000)
    sound[24_000:48_000] = np.nan
    write_video(path, sound=sound, audio_codec="pcm_f32le")


def sound_alone(path: Path, seconds: int = 2) -> None:
    """No video stream."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16_000 * seconds))


def text(*lines: str) -> Callable[[Path], object]:
    """A file of lines."""
    return lambda path: path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def video(**settings: Any) -> Callable[[Path], object]:
    """See `write_video`."""
    return lambda path: write_video(path, **settings)


def _files() -> Iterator[tuple[str, str, Callable[[Path], object]]]:
    """What it is, its name, what writes it."""
    noise = np.random.default_rng(0).bytes(100_000)
    yield "empty file", "empty.mp4", content(b"")
    yield "random bytes", "random.mp4", content(noise)
    yield "mp4 cut off before its index", "cut_off.mp4", without_index
    yield "damaged in the middle", "damaged.mp4", damaged
    yield "no audio stream", "mute.mp4", video(sound=None)
    sound = {"sound": tones(1.7, 24_000), "audio_codec": "pcm_s16le"}
    yield "sound for 1.7 of 4 s", "sound_ends.mkv", video(seconds=4, **sound)
    yield "sound is silent", "silent.mp4", video(sound=0 * tones(3, 24_000))
    yield "sound has NaN in it", "nan.mkv", with_numbers_that_are_none
    yield "sound alone", "sound.wav", sound_alone
    yield "shorter than a second", "short.mp4", video(seconds=0.8)
    times = [0.0, 0.1, 0.45, 0.55, 1.2, 1.5, 1.51, 2.1, 2.9, 3.0, 3.3, 3.9]
    yield "variable frame rate", "variable.mkv", video(seconds=4, times_s=times)
    yield "rotated by its header", "rotated.mp4", rotated
    lossless = {"video_codec": "ffv1"}
    odd = {"width": 63, "height": 47, "pix_fmt": "yuv444p", **lossless}
    yield "63 x 47 pixels", "odd.mkv", video(**odd)
    yield "10 bits", "10_bits.mp4", video(pix_fmt="yuv420p10le")
    yield "grey", "grey.mkv", video(pix_fmt="gray", **lossless)
    transparent = {"video_codec": "qtrle", "pix_fmt": "argb"}
    yield "transparent", "transparent.mov", video(**transparent)
    yield "sound of 8 kHz, mono", "8_khz.mp4", video(rate_hz=8_000)
    yield "sound of 5.1 channels", "surround.mp4", video(layout="5.1", rate_hz=48_000)
    there = "file:///etc/passwd"
    yield (
        "HLS playlist of a file elsewhere",
        "hls.mp4",
        text("#EXTM3U", "#EXTINF:1,", there, "#EXT-X-ENDLIST"),
    )
    yield (
        "HLS playlist of the network",
        "hls_http.mp4",
        text("#EXTM3U", "#EXTINF:1,", "http://127.0.0.1:1/x.ts", "#EXT-X-ENDLIST"),
    )
    yield "ffconcat", "ffconcat.mp4", text("ffconcat version 1.0", "file mute.mp4")
    yield "concat without a head", "concat.mp4", text("file 'mute.mp4'")
    yield "pictures of 16,000 x 16,000 (bomb)", "bomb.mov", huge_bomb
    yield "says 20,000 x 20,000, is smaller", "huge.mkv", huge_by_header
    yield "pictures that say 20,000 x 20,000", "huge_inside.avi", huge_by_picture
    slow = {"picture": black, "sound": None}
    yield (
        f"{LONG_S // 60} min of black",
        "black.mp4",
        video(seconds=LONG_S, fps=1, **slow),
    )
    days = [100.0 * i for i in range(int(30 * HOUR_S / 100))]
    yield "30 h of black", "30_hours.mkv", video(times_s=days, **slow)
    yield "a pipe", "pipe.mp4", os.mkfifo
    yield "a link to a device", "zero.mp4", lambda path: path.symlink_to("/dev/zero")
    yield "a link to nothing", "dangling.mp4", lambda path: path.symlink_to("nowhere")


def _others() -> Iterator[tuple[str, str, Callable[[Path], object]]]:
    """Pictures and sounds, which are to be searched by alone."""
    noise = np.random.default_rng(0).bytes(100_000)
    picture, jpeg = Image.fromarray(np.full((48, 64, 3), 90, np.uint8)), io.BytesIO()
    picture.save(jpeg, "JPEG")
    yield "a picture", "picture.jpg", lambda path: picture.save(path)
    yield "PNG of 16,000 x 16,000 (bomb)", "bomb.png", content(png_of(16_000))
    yield "PNG of 10,000 x 10,000", "large.png", content(png_of(10_000))
    yield "empty picture", "empty.png", content(b"")
    yield "random bytes", "random.jpg", content(noise)
    yield "JPEG cut off", "cut_off.jpg", content(jpeg.getvalue()[:-40])
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    yield "SVG with a script, named .png", "script.png", text(svg)
    command = "%!PS (owned) (w) file closefile showpage"
    yield "PostScript, named .tif", "postscript.tif", text(command)
    yield "a pipe named .jpg", "pipe.jpg", os.mkfifo
    yield "a link to a device, named .png", "zero.png", _link_to_zero
    yield "sound of 2 s", "sound.wav", sound_alone
    yield "sound of no samples", "none.wav", lambda path: sound_alone(path, 0)
    yield "random bytes", "random.mp3", content(noise)
    yield "playlist of a file elsewhere", "list.aac", text("#EXTM3U", "/etc/passwd")


def _link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def write_media(folder: Path) -> dict[Path, str]:
    """All videos; what each is, by path."""
    found = _written(folder, _files())
    write_video(folder / "x.mp4")
    for name in NAMES:
        path = folder / os.fsdecode(name)
        path.write_bytes((folder / "x.mp4").read_bytes())
        found[path] = f"named {ascii(name)[1:]}"
    (folder / "x.mp4").unlink()
    return found


def write_others(folder: Path) -> dict[Path, str]:
    """All pictures and sounds; what each is, by path."""
    return _written(folder, _others())


def _written(
    folder: Path, files: Iterator[tuple[str, str, Callable[[Path], object]]]
) -> dict[Path, str]:
    folder.mkdir(parents=True)
    found = {}
    for what, name, write in files:
        write(folder / name)
        found[folder / name] = what
    return found
