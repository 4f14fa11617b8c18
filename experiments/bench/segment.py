"""Videos to keyframes, spectrograms and features: ours beside production's way.

    python -m experiments.bench.segment VIDEOS [--torch-python OTHER/bin/python]

VIDEOS is a folder of files. Production's way is PySceneDetect on OpenCV's decoder, its
save_images, ffmpeg to 24 kHz mono, python_speech_features and numpy.savez, one file
after another, each of these in as many threads as it takes by itself. Ours is `visxp
segment`: once in one process and one thread, once the command itself, with a process
on every core, whose start is part of the time. Where there is no cut, all is one shot
for both.

With --torch-python, of an environment that has torch, numpy and OpenCV, features of
these folders as well: `visxp folders` beside PyTorch's network in eager mode,
channels-last, which reads its batch and then computes, folder by folder. Both are
compiled and loaded before.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from python_speech_features import logfbank
from scenedetect import ContentDetector, SceneManager, open_video, save_images

from data_prep.pool import Failure, num_cores
from data_prep.sources import source_of
from experiments.bench.child import TorchProcess
from experiments.bench.measure import (
    Rate,
    arguments,
    as_json,
    finish,
    interleaved,
    table,
)
from visxp_jax.production.checkpoint import make_encoder, published, read_state
from visxp_jax.production.extract import BATCH_CPU, WAITING
from visxp_jax.production.features import features_of, read_folders
from visxp_jax.production.folder import opened
from visxp_jax.production.settings import read_settings
from visxp_jax.production.write_folder import Task, write_folder
from visxp_jax.streams import read_ahead

RATE_HZ = 24_000
PEER = "production's way"
ONE = "visxp segment, one process"
OURS = "visxp segment"
TORCH = "PyTorch eager, channels_last"
FEATURES = "visxp folders"
TORCH_BATCH = 32  # of one folder


def production(video: Path, out: Path) -> list[int]:
    """Keyframes and spectrograms of a video; the times of its keyframes."""
    cv2.setNumThreads(num_cores())  # ours sets one
    keyframes, spectrograms = out / "keyframes", out / "spectrograms"
    spectrograms.mkdir(parents=True)
    stream, manager = open_video(os.fspath(video)), SceneManager()
    manager.add_detector(ContentDetector())
    manager.detect_scenes(stream)
    save_images(
        manager.get_scene_list(start_in_scene=True),
        stream,
        num_images=1,
        encoder_param=100,
        output_dir=keyframes,
        image_name_template="$TIMESTAMP_MS",
    )
    times_ms = sorted(int(file.stem) for file in keyframes.iterdir())
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", os.path.abspath(video)]
    command += ["-vn", "-f", "s16le", "-ac", "1", "-ar", str(RATE_HZ), "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    wave = np.frombuffer(done.stdout, np.int16)
    for time_ms in times_ms:
        begin, end = ((time_ms + ms) * RATE_HZ // 1000 for ms in (-500, 500))
        window = wave[max(begin, 0) : end]
        if not len(window):
            continue
        found = logfbank(
            window, RATE_HZ, winlen=0.02, winstep=0.01, nfilt=257, nfft=1024
        )
        found = (found.astype(np.float32).T[None] - 1.93) / 17.89
        np.savez(spectrograms / f"{time_ms}_{RATE_HZ}.npz", {"audio": found})
    return times_ms


def task_of(video: Path, out: Path) -> Task:
    """What `visxp segment` makes of its command line."""
    return Task(source_of(video), out, "shots", (RATE_HZ,), archive=False)


def command_line(videos: list[Path], out: Path) -> None:
    """The command, from its start on."""
    command = [sys.executable, "-m", "visxp_jax.production.segment", f"--out={out}"]
    files = [os.path.abspath(video) for video in videos]
    subprocess.run([*command, *files], check=True, capture_output=True)


def in_new_folder(work: Callable[[Path], object]) -> Callable[[], None]:
    """A job that writes into another folder each time."""

    def job() -> None:
        with tempfile.TemporaryDirectory() as folder:
            work(Path(folder))

    return job


def usable(videos: list[Path], out: Path) -> tuple[list[Path], float, int]:
    """Those that give a folder, which is left in `out`; their seconds and keyframes."""
    kept, seconds, keyframes = [], 0.0, 0
    for video in videos:
        about = write_folder(task_of(video, out), lambda: None)
        if isinstance(about, Failure):
            print(f"left out: {video.name}: {about.reason}")
            continue
        kept.append(video)
        seconds += about["seconds"]
        keyframes += about["keyframes"]
    return kept, seconds, keyframes


def differences(videos: list[Path], folders: Path) -> list[str]:
    """In which videos production finds other keyframes, by number or by a second."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        for video in videos:
            theirs = production(video, Path(name) / video.name)
            with opened(folders / video.stem) as folder:
                ours = list(folder.keyframes)
            near = len(ours) == len(theirs) and np.allclose(ours, theirs, atol=1000)
            if not near:
                found.append(f"{video.name}: {len(ours)} and {len(theirs)} keyframes")
    return found


def segments(
    videos: list[Path], seconds: float, rounds: int
) -> tuple[dict[str, Rate], str]:
    """Seconds of video per second."""

    def one_by_one(out: Path) -> None:
        for video in videos:
            write_folder(task_of(video, out), lambda: None)

    def theirs(out: Path) -> None:
        for video in videos:
            production(video, out / video.name)

    names = (PEER, ONE, OURS)
    rates = interleaved(
        {
            PEER: in_new_folder(theirs),
            ONE: in_new_folder(one_by_one),
            OURS: in_new_folder(lambda out: command_line(videos, out)),
        },
        units=dict.fromkeys(names, round(seconds)),
        reference=PEER,
        rounds=rounds,
    )
    title = f"segments, {len(videos)} videos of {seconds:.0f} s"
    return rates, table(title, "times real time", rates, PEER)


def features(
    folders: list[Path], keyframes: int, torch_python: str, rounds: int
) -> tuple[dict[str, Rate], dict[str, dict[str, float]], str]:
    """Keyframes per second, and by folder their number and how far features differ."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        torch = TorchProcess(
            torch_python, "torch_folders.py", name, f"--threads={num_cores()}"
        )
        checkpoint, config = scratch / "avnet.tar", scratch / "avnet.yml"
        settings = read_settings(config)
        encode = make_encoder(published(read_state(checkpoint), settings, checkpoint))

        def ours() -> list[np.ndarray]:
            items = read_ahead(partial(read_folders, folders, settings), WAITING)
            found = features_of(items, settings, encode, batch_size=BATCH_CPU)
            return [features.rows for _, features in found]

        def theirs() -> None:
            for path in folders:
                torch.run(folder=os.fspath(path.absolute()), batch=TORCH_BATCH)

        names = (TORCH, FEATURES)
        rates = interleaved(
            {TORCH: theirs, FEATURES: ours},
            units=dict.fromkeys(names, keyframes),
            reference=TORCH,
            rounds=rounds,
        )
        files: dict[str, dict[str, float]] = {}
        for path, rows in zip(folders, ours(), strict=True):
            out = scratch / "rows.npy"
            torch.run(
                folder=os.fspath(path.absolute()), batch=TORCH_BATCH, out=str(out)
            )
            difference = float(np.abs(np.load(out) - rows[:, 3:]).max())
            files[path.name] = {
                "keyframes": len(rows),
                "largest_difference": difference,
            }
        torch.close()
    title = f"features, {keyframes} keyframes"
    return rates, files, table(title, "keyframes/s", rates, TORCH)


def main() -> None:
    """Print both tables."""
    parser = arguments(__doc__)
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of files")
    parser.add_argument("--torch-python", help="its environment; else no features")
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        videos = sorted(path for path in args.videos.iterdir() if path.is_file())
        videos, seconds, keyframes = usable(videos, Path(name))
        other = differences(videos, Path(name))
        segmented, text = segments(videos, seconds, args.rounds)
        print(text)
        per_s = {
            job: rate.per_s * keyframes / seconds for job, rate in segmented.items()
        }
        for job, rate in per_s.items():
            print(f"  {job}: {rate:.1f} segments/s")
        print("  other keyframes:", "; ".join(other) or "none")
        figures = {
            "videos": len(videos),
            "seconds": seconds,
            "keyframes": keyframes,
            "times_real_time": as_json(segmented),
            "segments_per_s": per_s,
            "other_keyframes": other,
        }
        if args.torch_python:
            folders = [Path(name) / video.stem for video in videos]
            rates, files, text = features(
                folders, keyframes, args.torch_python, args.rounds
            )
            print(text)
            worst = max(file["largest_difference"] for file in files.values())
            print(f"  largest difference of a feature: {worst:.1e}")
            both = {
                kind: seconds / segment.per_s + keyframes / encode.per_s
                for kind, segment, encode in (
                    ("theirs", segmented[PEER], rates[TORCH]),
                    ("ours", segmented[OURS], rates[FEATURES]),
                )
            }
            print(f"  both steps: {both['theirs']:.2f} s and {both['ours']:.2f} s")
            figures["keyframes_per_s"] = as_json(rates)
            figures["largest_difference"] = worst
            figures["seconds_of_both_steps"] = both
            figures["files"] = files
    finish(args.out, "segment", figures)


if __name__ == "__main__":
    main()
