"""One-second clips from video: one pass beside a seek for every middle frame.

    python -m experiments.bench.decode [VIDEO ...]

Without VIDEO, on 30 s of moving pictures and sound made here: H.264, with and without
sound, and Motion JPEG, as an example of pictures that stand by themselves. The rival
seeks to the middle of each second, decodes from the key frame before it to the frame
wanted, and resizes that; it treats the sound as we do, in one pass. Goal: at least 2
times the rival where key frames are far apart. Floor: decoding every frame and all of
the sound, and converting none.
"""

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from experiments.bench.measure import arguments, as_json, finish, interleaved, table
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.media import read_clips

PRESET = PRESETS["visxp"]
SIZE_PX = 256
PEER = "seek per frame"
OURS = "one pass"
FLOOR = "floor: decode alone"
MADE: dict[str, dict] = {
    "with sound.mp4": {},
    "pictures only.mp4": {"sound": False},
    "motion jpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}


def write_video(
    path: Path,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    seconds: int = 30,
    sound: bool = True,
) -> None:
    """Drifting texture at 480 x 270 and 25 fps, key frame every 10 s, and noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (34, 80, 3)).astype(np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)[:270]
    with av.open(str(path), "w") as out:
        options = {"preset": "veryfast"} if codec == "libx264" else {}
        video = out.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = 480, 270, pix_fmt
        video.codec_context.gop_size = 250
        audio = out.add_stream("aac", rate=44_100, layout="mono") if sound else None
        for i in range(25 * seconds):
            picture = np.roll(texture, 2 * i, axis=1)[:, :480]
            picture = picture + rng.integers(0, 8, picture.shape, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            out.mux(video.encode(frame))
            if audio is None:
                continue
            noise = rng.integers(-9000, 9000, (1, 1764)).astype(np.int16)
            piece = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            piece.rate, piece.pts = 44_100, 1764 * i
            piece.time_base = Fraction(1, 44_100)
            out.mux(audio.encode(piece))
        out.mux(video.encode(None))
        if audio is not None:
            out.mux(audio.encode(None))


def seek_frames(path: Path, num_clips: int) -> list[np.ndarray]:
    """The frame shown in the middle of each second, found by seeking."""
    found = []
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        start = (video.start_time or 0) * video.time_base
        for i in range(num_clips):
            middle = start + i + Fraction(1, 2)
            container.seek(int(middle / video.time_base), stream=video)
            wanted = None
            for frame in container.decode(video):
                if wanted is not None and frame.pts * video.time_base > middle:
                    break
                wanted = frame
            image = Image.fromarray(wanted.to_ndarray(format="rgb24"))
            small = image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR)
            found.append(np.asarray(small))
    return found


def sound_in_one_pass(path: Path) -> list[np.ndarray]:
    """The log-mel of each second."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=PRESET.rate_hz)
    pieces = []
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        for frame in container.decode(audio=0):
            pieces += [p.to_ndarray()[0] for p in resampler.resample(frame)]
    wave = np.concatenate(pieces).astype(np.float32) / 32_768
    seconds = len(wave) // PRESET.rate_hz
    return list(PRESET.log_mel(wave[: seconds * PRESET.rate_hz].reshape(seconds, -1)))


def decode_only(path: Path) -> None:
    """Every frame and every piece of sound, looked at by nobody."""
    with av.open(str(path)) as container:
        streams = [*container.streams.video[:1], *container.streams.audio[:1]]
        for _ in container.decode(streams):
            pass


def compare(path: Path, rounds: int) -> dict:
    """Print the table of one video."""
    clips = list(read_clips(path, size_px=SIZE_PX, spectrogram=PRESET))
    rates = interleaved(
        {
            PEER: lambda: (seek_frames(path, len(clips)), sound_in_one_pass(path)),
            OURS: lambda: list(read_clips(path, size_px=SIZE_PX, spectrogram=PRESET)),
            FLOOR: lambda: decode_only(path),
        },
        units=dict.fromkeys((PEER, OURS, FLOOR), len(clips)),
        reference=PEER,
        rounds=rounds,
    )
    theirs = seek_frames(path, len(clips))
    difference = np.mean(
        [
            np.abs(a.frame.astype(int) - b).mean()
            for a, b in zip(clips, theirs, strict=True)
        ]
    )
    share = rates[OURS].per_s / rates[FLOOR].per_s
    print(table(f"{path.name}, {len(clips)} clips", "clips/s", rates, PEER))
    print(
        f"  share of the floor: {share:.0%}; frames differ by {difference:.2f} of 255 "
        "levels on average"
    )
    return {
        "rates": as_json(rates),
        "share_of_floor": share,
        "frame_difference": float(difference),
    }


def main() -> None:
    """Print a table per video."""
    parser = arguments(__doc__)
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, how in MADE.items():
            if not args.videos:
                write_video(Path(folder) / name, **how)
        for path in args.videos or [Path(folder) / name for name in MADE]:
            figures[path.name] = compare(path, args.rounds)
    finish(args.out, "decode", {"videos": figures})


if __name__ == "__main__":
    main()
