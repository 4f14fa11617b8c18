"""Small media files, made at test time.

Unless told otherwise the picture's brightness and the pitch of the sound tell the
second they belong to: see `level` and `pitch_hz`.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def level(second: int) -> int:
    """Brightness of all pixels in a second."""
    return 40 + 35 * (second % 6)


def pitch_hz(second: int) -> float:
    """Pitch of the tone in a second."""
    return 500.0 * (second % 6 + 1)


def grey(time_s: float, height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), level(int(time_s + 1e-6)), np.uint8)


def moving(time_s: float, height: int, width: int) -> np.ndarray:
    """Noise that differs in every frame, so that all packets are large."""
    rng = np.random.default_rng(round(time_s * 1000))
    noise = rng.integers(-30, 30, (height, width, 3))
    return (level(int(time_s + 1e-6)) + noise).clip(0, 255).astype(np.uint8)


def tones(seconds: float, rate_hz: int, *, from_s: float = 0.0) -> np.ndarray:
    """float32 [samples], from `from_s` of the clock that pictures go by."""
    time_s = from_s + np.arange(round(seconds * rate_hz)) / rate_hz
    pitch = 500.0 * (np.floor(time_s) % 6 + 1)
    return (0.5 * np.sin(2 * np.pi * pitch * (time_s % 1))).astype(np.float32)


def write_video(
    path: Path,
    *,
    seconds: float = 3.0,
    fps: int = 10,
    width: int = 64,
    height: int = 48,
    picture: Callable[[float, int, int], np.ndarray] = grey,
    times_s: Sequence[float] | None = None,
    start_s: float = 0.0,
    video_codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    aspect: Fraction = Fraction(1),
    keyframe_every: int = 10,
    sound: np.ndarray | None | str = "tones",
    sound_from_s: float = 0.0,
    audio_codec: str = "aac",
    rate_hz: int = 24_000,
    layout: str = "mono",
    title: str = "",
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video with sound.

    Args:
        path: Its suffix decides the container.
        seconds: Of picture and, if `sound` is 'tones', of sound.
        fps: Frames per second.
        width: Of the picture.
        height: Of the picture.
        picture: Of (time_s, height, width).
        times_s: When frames appear, instead of `fps` times a second.
        start_s: Added to all timestamps.
        video_codec: Of FFmpeg.
        pix_fmt: Of FFmpeg.
        aspect: Of a pixel, width by height.
        keyframe_every: Frames.
        sound: Samples, 'tones', or None for no audio stream.
        sound_from_s: When the sound starts on the clock of the pictures.
        audio_codec: Of FFmpeg.
        rate_hz: Of the sound.
        layout: Channels.
        title: Of the container.
        options: Of FFmpeg, for the container.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(sound, str):
        sound = tones(seconds, rate_hz, from_s=sound_from_s)
    if times_s is None:
        times_s = [i / fps for i in range(round(seconds * fps))]
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata["title"] = title
        video = container.add_stream(video_codec, rate=fps)
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        base = Fraction(1, fps if video_codec == "mpeg2video" else 1000)
        video.time_base = video.codec_context.time_base = base
        video.gop_size = keyframe_every
        video.codec_context.sample_aspect_ratio = aspect
        if video_codec == "libx264":
            video.options = {"preset": "ultrafast", "crf": "12"}
        audio = None
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=rate_hz, layout=layout)
        pictures = iter(times_s)
        pieces = _pieces(sound, rate_hz, layout, start_s + sound_from_s)
        # Second by second, so that the two are interleaved.
        time_s, piece = next(pictures, None), next(pieces, None)
        while time_s is not None or piece is not None:
            first = piece is None or (
                time_s is not None and start_s + time_s <= float(piece.pts) / rate_hz
            )
            if time_s is not None and first:
                frame = av.VideoFrame.from_ndarray(
                    picture(time_s, height, width), format="rgb24"
                ).reformat(format=pix_fmt)
                frame.pts = round((start_s + time_s) / base)
                frame.time_base = base
                container.mux(video.encode(frame))
                time_s = next(pictures, None)
            else:
                container.mux(audio.encode(piece))
                piece = next(pieces, None)
        container.mux(video.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return path


def _pieces(sound, rate_hz, layout, from_s):
    if sound is None:
        return
    channels = len(av.AudioLayout(layout).channels)
    for first in range(0, len(sound), 1024):
        samples = np.repeat(sound[first : first + 1024], channels)[None]
        piece = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        piece.rate = rate_hz
        piece.pts = round(from_s * rate_hz) + first
        piece.time_base = Fraction(1, rate_hz)
        yield piece


PACKET = 188  # bytes, of a transport stream
FIRST_PID = 32  # that is not reserved, as those of tables of the whole stream are


def write_programmes(path: Path, *programmes: dict[str, Any]) -> Path:
    """Write a transport stream of programmes 1, 2, ..., each made by `write_video`.

    PyAV writes one programme alone: their packets are interleaved here, those of 1
    first, behind one table that names them all.
    """
    packets, table = [], b""
    for number, how in enumerate(programmes, 1):
        pid = 0x1000 + number
        options = {
            "mpegts_service_id": str(number),
            "mpegts_pmt_start_pid": str(pid),
            "mpegts_start_pid": str(0x100 * number),
        }
        table += number.to_bytes(2, "big") + (0xE000 | pid).to_bytes(2, "big")
        data = write_video(path, options=options, **how).read_bytes()
        every = [data[at : at + PACKET] for at in range(0, len(data), PACKET)]
        own = [x for x in every if int.from_bytes(x[1:3], "big") & 0x1FFF >= FIRST_PID]
        packets += [(at / len(own), number, packet) for at, packet in enumerate(own)]
    length = 0xB000 | len(table) + 9
    section = b"\0" + length.to_bytes(2, "big") + bytes.fromhex("0001c10000") + table
    section += _crc(section).to_bytes(4, "big")
    first = (bytes.fromhex("4740001000") + section).ljust(PACKET, b"\xff")
    path.write_bytes(first + b"".join(packet for *_, packet in sorted(packets)))
    return path


def _crc(data: bytes) -> int:
    """CRC-32 as MPEG-2 has it: the highest bit first, and nothing inverted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc >> 31 else 0)
    return crc


def damage(path: Path, *, at: float, num_bytes: int = 4000) -> None:
    """Overwrite some bytes in the middle of a file."""
    data = bytearray(path.read_bytes())
    first = int(at * len(data))
    noise = np.random.default_rng(0).integers(0, 256, num_bytes, dtype=np.uint8)
    data[first : first + num_bytes] = noise.tobytes()
    path.write_bytes(data)


def rotate(path: Path) -> None:
    """Set an mp4's display matrix to a quarter turn clockwise."""
    data = path.read_bytes()
    unit = (1 << 16).to_bytes(4, "big")
    none = bytes(4)
    last = (1 << 30).to_bytes(4, "big")
    upright = unit + none * 3 + unit + none * 3 + last
    minus = (-(1 << 16)).to_bytes(4, "big", signed=True)
    turned = none + unit + none + minus + none * 4 + last
    track = data.index(b"tkhd")  # the video track comes first
    at = data.index(upright, track)
    path.write_bytes(data[:at] + turned + data[at + len(turned) :])


def cut_without_encoding(path: Path, out: Path, *, from_s: float) -> None:
    """Leave out the beginning: packets are kept, an edit list hides the pictures."""
    with av.open(str(path)) as old, av.open(str(out), "w") as new:
        streams = {s: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is None:
                continue
            assert packet.pts is not None
            earlier = round(from_s / packet.time_base)
            if packet.stream.type == "audio" and packet.pts < earlier:
                continue
            packet.pts, packet.dts = packet.pts - earlier, packet.dts - earlier
            packet.stream = streams[packet.stream]
            new.mux(packet)


def shift_timestamp(path: Path, *, stream_id: int, number: int) -> None:
    """Flip a high bit of the n-th presentation time of an MPEG-TS stream: 745 s."""
    data = bytearray(path.read_bytes())
    headers = []
    for first in range(0, len(data), 188):
        begins, has_more = data[first + 1] & 0x40, data[first + 3] & 0x20
        at = first + 4 + (1 + data[first + 4] if has_more else 0)
        if begins and data[at : at + 4] == bytes([0, 0, 1, stream_id]):
            headers.append(at)
    at = headers[number]
    data[at + 10] ^= 1 << 4
    if data[at + 7] & 0x40:  # the time of decoding, too
        data[at + 15] ^= 1 << 4
    path.write_bytes(data)
