"""The embedded demo data: real video files with sound, rendered from a seed.

Five families of four kinds. How things look and move goes with how they sound; all
else is nuisance, drawn independently in picture and sound and anew every 1 to 2 s.

    python -m data_prep.demo_videos FOLDER
"""

import csv
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from data_prep.demo_pictures import LOOKS, render_frames
from data_prep.demo_sounds import render_sound
from data_prep.pool import Beat, Failure, run_isolated
from visxp_jax.atomic import write_whole
from visxp_jax.command_line import Parser, command
from visxp_jax.errors import VisxpError
from visxp_jax.progress import progress_bar

KINDS: tuple[str, ...] = tuple(LOOKS)
SIZE_PX = 112
FRAME_HZ = 10
RATE_HZ = 24_000
TRUTH = "truth.csv"
TIMEOUT_S = 120.0  # for one file, which takes a tenth of a second

# (period, first) of the faulty file numbers; periods coprime to the 20 kinds, so that
# the faults wander over all of them.
_MUTE = (23, 5)
_DUBBED = (23, 14)
_HUSHED = (71, 40)


class DemoVideo(NamedTuple):
    """What one file shows and plays; a row of `truth.csv`.

    Attributes:
        file: Path within the folder, with forward slashes.
        family: Family of the picture.
        kind: Kind of the picture within its family.
        sound_kind: `family/kind` of the sound; empty without an audio stream.
        seconds: Length, 6 to 10, a multiple of 1 / FRAME_HZ.
    """

    file: str
    family: str
    kind: str
    sound_kind: str
    seconds: float


def demo_video(index: int, *, seed: int) -> DemoVideo:
    """The plan of one file.

    Args:
        index: Number of the file; kinds take turns.
        seed: Seed of the set.

    Returns:
        Its plan. About 4 % of files have no audio stream, 4 % the sound of another
        family.
    """
    rng = np.random.default_rng([seed, index, 0])
    look = KINDS[index % len(KINDS)]
    family, kind = look.split("/")
    number = index // len(KINDS)
    sound = look
    if index % _MUTE[0] == _MUTE[1]:
        sound = ""
    elif index % _DUBBED[0] == _DUBBED[1]:
        sound = str(rng.choice([k for k in KINDS if k.split("/")[0] != family]))
    return DemoVideo(
        file=f"{family}/{kind}/{family}-{kind}-{number:02d}.mp4",
        family=family,
        kind=kind,
        sound_kind=sound,
        seconds=round(int(rng.integers(6 * FRAME_HZ, 10 * FRAME_HZ + 1)) / FRAME_HZ, 4),
    )


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """A name to write to; becomes `path` if all went well, and vanishes if not."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _encode(path: Path, frames: np.ndarray, wave: np.ndarray | None) -> None:
    """Write H.264 and AAC in MP4; the same bytes on every run."""
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FRAME_HZ)
        video.width, video.height = frames.shape[2], frames.shape[1]
        video.pix_fmt = "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "25", "threads": "1"}
        audio = None
        if wave is not None:
            audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
            audio.bit_rate = 64_000
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(video.encode(None))
        if audio is not None and wave is not None:
            sound = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
            sound.sample_rate = RATE_HZ
            # With a time, the encoder puts its 1,024 samples of lead-in before 0.
            sound.pts, sound.time_base = 0, Fraction(1, RATE_HZ)
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))


def _render_job(job: tuple[Path, int, int], beat: Beat) -> None:
    _render(*job)
    beat()


def _render(folder: Path, index: int, seed: int) -> None:
    plan = demo_video(index, seed=seed)
    path = folder / plan.file
    path.parent.mkdir(parents=True, exist_ok=True)
    # Separate streams of chance: picture and sound share the kind and nothing else.
    picture_rng = np.random.default_rng([seed, index, 1])
    sound_rng = np.random.default_rng([seed, index, 2])
    times_s = np.arange(round(plan.seconds * FRAME_HZ)) / FRAME_HZ
    frames = render_frames(
        f"{plan.family}/{plan.kind}", times_s, size_px=SIZE_PX, rng=picture_rng
    )
    wave = None
    if plan.sound_kind:
        wave = render_sound(
            plan.sound_kind, plan.seconds, rate_hz=RATE_HZ, rng=sound_rng
        )
        if index % _HUSHED[0] == _HUSHED[1]:
            wave[2 * RATE_HZ : 4 * RATE_HZ] = 0.0
    with _atomic(path) as part:
        _encode(part, frames, wave)


def _check_truth(folder: Path, text: str, seed: int) -> None:
    """Refuse a folder whose files were planned otherwise."""
    truth = folder / TRUTH
    if not truth.exists():
        return
    old, new = (
        {row["file"]: row for row in csv.DictReader(io.StringIO(rows))}
        for rows in (truth.read_text(encoding="utf-8"), text)
    )
    if any(old[file] != row for file, row in new.items() if file in old):
        raise VisxpError(
            f"{folder} must be empty or hold demo videos of seed {seed}, but its "
            f"{TRUTH} lists others; choose another folder or the seed it was made with."
        )


def _truth_text(plans: list[DemoVideo]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(DemoVideo._fields)
    writer.writerows(plans)
    return text.getvalue()


def write_demo_videos(
    folder: Path,
    *,
    videos: int = 200,
    seed: int = 0,
    workers: int = 2,
    progress: bool = True,
) -> None:
    """Render the demo videos into a folder, as `<family>/<kind>/*.mp4` and `truth.csv`.

    Files that exist are kept, so an interrupted call is taken up by the next. A file
    depends on the seed and its number only.

    Args:
        folder: Where to; made if missing.
        videos: Number of files, at least 1.
        seed: Seed of everything drawn by chance, at least 0.
        workers: Processes; 1 renders in this one.
        progress: Show it on stderr.

    Raises:
        VisxpError: A number out of range, or the folder holds files of another seed.
    """
    for name, value, least in (
        ("videos", videos, 1),
        ("seed", seed, 0),
        ("workers", workers, 1),
    ):
        if value < least:
            raise VisxpError(f"{name} must be at least {least}, got {value}.")
    folder = Path(folder)
    plans = [demo_video(index, seed=seed) for index in range(videos)]
    text = _truth_text(plans)
    _check_truth(folder, text, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / TRUTH, text)

    missing = [i for i, plan in enumerate(plans) if not (folder / plan.file).exists()]
    with progress_bar(
        total=len(missing), desc="demo videos", unit="file", shown=progress
    ) as bar:
        if workers == 1:
            for index in missing:
                _render(folder, index, seed)
                bar.update()
            return
        jobs = [(folder, index, seed) for index in missing]
        for (_, index, _), result in run_isolated(
            _render_job, jobs, workers=workers, timeout_s=TIMEOUT_S
        ):
            if isinstance(result, Failure):
                raise VisxpError(
                    f"{folder / plans[index].file} cannot be rendered: {result.reason}."
                )
            bar.update()


@command("stopped; the same command goes on from here.")
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(
        "python -m data_prep.demo_videos",
        "Render small videos with sound of 20 known kinds.",
    )
    parser.add_argument("folder", type=Path, help="where to write; made if missing")
    parser.add_argument("--videos", type=int, default=200, help="number of files")
    parser.add_argument("--seed", type=int, default=0, help="seed of all chance")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    args = parser.parse_args(argv)
    write_demo_videos(
        args.folder, videos=args.videos, seed=args.seed, workers=args.workers
    )


if __name__ == "__main__":
    sys.exit(main())
