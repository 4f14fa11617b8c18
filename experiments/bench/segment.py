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
from typing import Any

import av
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
from visxp_jax.container import streams_of
from visxp_jax.production.arrays import read_pickled_dict
from visxp_jax.production.checkpoint import make_encoder, published, read_state
from visxp_jax.production.extract import BATCH_CPU, WAITING
from visxp_jax.production.features import features_of, read_folders
from visxp_jax.production.folder import opened
from visxp_jax.production.settings import read_settings
from visxp_jax.production.write_folder import Task, write_folder
from visxp_jax.streams import read_ahead

RATE_HZ = 24_000
MEAN, STD = 1.93, 17.89
LOG_MEL = 0.1  # a larger difference is named
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
    wave = samples_of(video)
    for time_ms in times_ms:
        window = window_at(wave, time_ms)
        if len(window):
            found = {"audio": spectrogram_of(window)}
            np.savez(spectrograms / f"{time_ms}_{RATE_HZ}.npz", found)
    return times_ms


def samples_of(video: Path) -> np.ndarray:
    """The sound of a video as production has it, int16, counted from its first one."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", os.path.abspath(video)]
    command += ["-vn", "-f", "s16le", "-ac", "1", "-ar", str(RATE_HZ), "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    return np.frombuffer(done.stdout, np.int16)


def window_at(wave: np.ndarray, time_ms: int, late: int = 0) -> np.ndarray:
    """What there is of a second around a time; sound begins `late` samples in."""
    begin, end = ((time_ms + ms) * RATE_HZ // 1000 - late for ms in (-500, 500))
    return wave[max(begin, 0) : max(end, 0)]


def spectrogram_of(window: np.ndarray) -> np.ndarray:
    """As production makes it, float32 [1, 257, frames]."""
    found = logfbank(window, RATE_HZ, winlen=0.02, winstep=0.01, nfilt=257, nfft=1024)
    return (found.astype(np.float32).T[None] - MEAN) / STD


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


def late_samples(video: Path) -> int:
    """How far after the first picture sound begins, 0 if there is none."""
    with av.open(os.fspath(video)) as container:
        pictures, sound = streams_of(container, video)
        start_s = float((pictures.start_time or 0) * (pictures.time_base or 0))
        first = next(container.decode(sound), None) if sound else None
    return 0 if first is None else round((first.time - start_s) * RATE_HZ)


def log_mel_difference(
    ours: dict[int, np.ndarray], wave: np.ndarray, late: int
) -> dict[str, float]:
    """Of ours, by time, from production's, at times whose whole second it has."""
    windows = {time_ms: window_at(wave, time_ms, late) for time_ms in ours}
    found = [
        STD * np.abs(ours[time_ms] - spectrogram_of(window))
        for time_ms, window in windows.items()
        if len(window) == RATE_HZ
    ]
    mean, largest = float(np.mean(found or 0)), float(np.max(found or 0))
    return {"spectrograms": len(found), "mean": mean, "largest": largest}


def beside(video: Path, ours: Path) -> dict[str, Any]:
    """How far a folder of ours is from production's way.

    Keyframes shot by shot. Spectrograms at our times, so that it is the sound that is
    compared, in units of natural log-mel: once with ffmpeg's samples counted from the
    first, as production does, once with the first placed by its timestamp, as ours.
    """
    wave, late = samples_of(video), late_samples(video)
    with tempfile.TemporaryDirectory() as scratch, opened(ours) as folder:
        theirs = production(video, Path(scratch))
        times = list(folder.keyframes)
        spectrograms = {
            time_ms: read_pickled_dict(path)["audio"]
            for (time_ms, _), path in folder.spectrograms.items()
        }
    pairs = zip(times, theirs, strict=True) if len(times) == len(theirs) else ()
    offsets = [abs(own - their) for own, their in pairs]
    return {
        "keyframes": len(times),
        "of_theirs": len(theirs),
        "same_time": offsets.count(0),
        "apart_ms": max(offsets, default=0),
        "sound_begins_ms": 1000 * late / RATE_HZ,
        "by_samples": log_mel_difference(spectrograms, wave, 0),
        "by_timestamps": log_mel_difference(spectrograms, wave, late),
    }


def told(files: dict[str, dict[str, Any]]) -> str:
    """What `beside` found, for people."""
    every = files.values()
    other = [name for name, x in files.items() if x["keyframes"] != x["of_theirs"]]
    same, apart = sum(x["same_time"] for x in every), max(x["apart_ms"] for x in every)
    lines = [f"  {same} keyframes at the same ms, others at most {apart} ms apart"]
    lines += [f"  other numbers of keyframes: {', '.join(other) or 'none'}"]
    for placed in ("by_samples", "by_timestamps"):
        far = [name for name, x in files.items() if x[placed]["largest"] > LOG_MEL]
        lines += [f"  a log-mel {placed} differs by > {LOG_MEL}: {', '.join(far)}"]
    return "\n".join(lines)


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
) -> tuple[dict[str, Rate], dict[str, float], str]:
    """Keyframes per second, and by folder the largest difference of a feature."""
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
        found: dict[str, float] = {}
        for path, rows in zip(folders, ours(), strict=True):
            out = scratch / "rows.npy"
            torch.run(
                folder=os.fspath(path.absolute()), batch=TORCH_BATCH, out=str(out)
            )
            found[path.name] = float(np.abs(np.load(out) - rows[:, 3:]).max())
        torch.close()
    title = f"features, {keyframes} keyframes"
    return rates, found, table(title, "keyframes/s", rates, TORCH)


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
        files = {video.stem: beside(video, Path(name) / video.stem) for video in videos}
        segmented, text = segments(videos, seconds, args.rounds)
        print(text)
        per_s = {
            job: rate.per_s * keyframes / seconds for job, rate in segmented.items()
        }
        for job, rate in per_s.items():
            print(f"  {job}: {rate:.1f} segments/s")
        print(told(files))
        figures = {
            "videos": len(videos),
            "seconds": seconds,
            "keyframes": keyframes,
            "times_real_time": as_json(segmented),
            "segments_per_s": per_s,
            "files": files,
        }
        if args.torch_python:
            folders = [Path(name) / video.stem for video in videos]
            rates, differences, text = features(
                folders, keyframes, args.torch_python, args.rounds
            )
            print(text)
            for file, difference in differences.items():
                files[file]["largest_feature_difference"] = difference
            worst = max(differences.values())
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
            figures["largest_feature_difference"] = worst
            figures["seconds_of_both_steps"] = both
    finish(args.out, "segment", figures)


if __name__ == "__main__":
    main()
