"""VisXP's features of VisXP's folders, without PyTorch.

    python -m visxp_jax.production.extract FOLDERS --checkpoint=checkpoint.tar \
        --config=model_config.yml --out=features

For each folder, or tar.gz of one, writes features/NAME.pt as the original does: a NumPy
file of float32 rows, one for each keyframe in the order of time: ms, first and last ms
of its shot or -1 -1, 512 numbers of sound if the network has ears, 512 of sight; and
NAME.json beside it, which says what made them. Folders that are done, and have not
changed since, are left alone; one that cannot be used is named and skipped.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from visxp_jax import __version__
from visxp_jax.atomic import write_whole
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.errors import VisxpError
from visxp_jax.media import printable
from visxp_jax.production.checkpoint import (
    digest,
    make_encoder,
    published,
    read_state,
)
from visxp_jax.production.folder import (
    Folder,
    Spectrogram,
    name_of,
    opened,
    read_keyframe,
    read_spectrogram,
)
from visxp_jax.production.settings import Settings, read_settings
from visxp_jax.progress import progress_bar

BATCH = 32
READERS = 4  # threads, each with a picture in hand
RECIPE = PRESETS["visxp"]  # of stored spectrograms


class Item(NamedTuple):
    """A keyframe and its second of sound, as the network takes them."""

    time_ms: int
    image: np.ndarray  # float32 [h, w, 3]
    sound: Spectrogram | None  # None if there is none


class Extracted(NamedTuple):
    """Features of one folder."""

    rows: np.ndarray  # float32 [keyframes, 3 + 512 or 3 + 1024]
    missing: int  # spectrograms that are not there: zeros, as for the original
    filled: int  # spectrograms that end early: silence stands for the rest
    foreign: int  # spectrograms that VisXP's recipe cannot give


def read_item(folder: Folder, settings: Settings, time_ms: int) -> Item:
    """One row's input.

    Raises:
        VisxpError: a file of it cannot be used.
    """
    image = read_keyframe(folder.keyframes[time_ms], settings.size, settings.frame)
    audio, sound = settings.audio, None
    if audio is not None:
        path = folder.spectrograms.get((time_ms, audio.rate_hz))
        if path is not None:
            empty = empty_bands(audio.rate_hz, audio.bands)
            sound = read_spectrogram(path, audio, RECIPE.silence, empty)
    return Item(time_ms, image, sound)


@cache
def empty_bands(rate_hz: int, bands: int) -> np.ndarray:
    """Of VisXP's recipe at any rate, bool [bands]; see `Spectrogram.empty_bands`."""
    return dataclasses.replace(RECIPE, rate_hz=rate_hz, bands=bands).empty_bands


def read_items(folder: Folder, settings: Settings) -> Iterator[Item]:
    """All in the order of time, read ahead by a few threads."""
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[Future[Item]] = deque()
        try:
            for time_ms in folder.keyframes:
                ahead.append(pool.submit(read_item, folder, settings, time_ms))
                if len(ahead) > 2 * BATCH:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()


def check_rates(folder: Folder, settings: Settings) -> None:
    """Refuse spectrograms of which none is for this network: not to be taken for none.

    Raises:
        VisxpError: names the rates that there are.
    """
    rates = {rate for _, rate in folder.spectrograms}
    if settings.audio and rates and settings.audio.rate_hz not in rates:
        raise VisxpError(
            f"spectrograms must be of {settings.audio.rate_hz} Hz for this network, "
            f"there are some of {', '.join(map(str, sorted(rates)))} Hz."
        )


def features_of(
    folder: Folder,
    settings: Settings,
    encode: Callable,
    done: Callable[[int], object] = lambda _: None,
) -> Extracted:
    """Features of one folder.

    Args:
        folder: From `opened`.
        settings: Of the network.
        encode: From `make_encoder`.
        done: Is told of each batch how many rows it had.

    Raises:
        VisxpError: a file cannot be used, or a feature is not finite.
    """
    check_rates(folder, settings)
    rows, waiting, missing, filled, foreign = [], [], 0, 0, 0
    audio = settings.audio

    def encoded(batch: list[Item], size: int) -> None:
        image = np.zeros((size, *settings.size, 3), np.float32)
        sound = None
        if audio is not None:
            sound = np.zeros((size, audio.bands, audio.frames), np.float32)
        for i, item in enumerate(batch):
            image[i] = item.image
            if sound is not None and item.sound is not None:
                sound[i] = item.sound.values
        parts = [part for part in encode(image, sound) if part is not None]
        where = [(item.time_ms, *folder.shot_at(item.time_ms)) for item in batch]
        rows.append(
            np.concatenate(
                [np.array(where, np.float32), *(p[: len(batch)] for p in parts)], axis=1
            )
        )
        done(len(batch))

    for item in read_items(folder, settings):
        missing += audio is not None and item.sound is None
        filled += item.sound is not None and item.sound.filled
        foreign += item.sound is not None and item.sound.foreign
        waiting.append(item)
        if len(waiting) == BATCH:
            encoded(waiting, BATCH)
            waiting = []
    for item in waiting:  # a short folder filled up to 32 would cost much more
        encoded([item], 1)
    found = np.concatenate(rows)
    if not np.isfinite(found).all():
        raise VisxpError("features must be finite, got NaN or infinity.")
    return Extracted(found, missing, filled, foreign)


def inputs_of(path: Path) -> str:
    """Digest of names, sizes and times of change: whether an input is what it was."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    told = hashlib.sha256()
    for file in files:
        found = file.lstat()
        name = os.fsencode(file.relative_to(path.parent))
        told.update(b"%s\0%d\0%d\0" % (name, found.st_size, found.st_mtime_ns))
    return told.hexdigest()


def write(out: Path, name: str, rows: np.ndarray, about: dict[str, object]) -> None:
    """NAME.pt, then NAME.json, which vouches for it: its sha256 is there."""
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=False)
    sha256 = hashlib.sha256(file.getvalue()).hexdigest()
    (out / f"{name}.json").unlink(missing_ok=True)
    write_whole(out / f"{name}.pt", file.getvalue())
    told = json.dumps({**about, "sha256": sha256}, indent=2)
    write_whole(out / f"{name}.json", told)


def is_done(out: Path, name: str, inputs: dict[str, str]) -> bool:
    """Whether these features are there, whole, and of the same inputs."""
    try:
        about = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        same = all(about[key] == value for key, value in inputs.items())
        return same and about["sha256"] == digest(out / f"{name}.pt")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def run(folders: list[Path], checkpoint: Path, config: Path, out: Path) -> int:
    """Extract all folders; how many could not be used.

    Raises:
        VisxpError: the network cannot be loaded, `out` not be written to, or two
            folders have one name.
    """
    names = [name_of(path) for path in folders]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise VisxpError(
            f"FOLDERS must differ in name, as their outputs do, but {twice[0]!r} is "
            "there twice; use several --out."
        )
    made_by = {
        "visxp_jax": __version__,
        "checkpoint_sha256": digest_of_input(checkpoint),
        "config_sha256": digest_of_input(config),
    }
    settings = read_settings(config)
    encode = make_encoder(published(read_state(checkpoint), settings, checkpoint))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VisxpError(f"cannot write to {out}: {error}.") from error
    failed = 0
    with progress_bar(desc="extract", unit="keyframe") as bar:
        for path, name in zip(folders, names, strict=True):
            # One that fails in whatever way must not cost the others their night.
            try:
                tqdm.write(extract(path, name, settings, encode, out, made_by, bar))
            except Exception as error:
                failed += 1
                kind = "" if isinstance(error, VisxpError) else type(error).__name__
                told = " ".join(f"{kind} {error}".split())
                tqdm.write(f"skipped: {printable(path)}: {told}", file=sys.stderr)
    return failed


def extract(
    path: Path,
    name: str,
    settings: Settings,
    encode: Callable,
    out: Path,
    made_by: dict[str, str],
    bar: tqdm,
) -> str:
    """One folder, unless that is done already; what to say of it."""
    if not path.exists():
        raise VisxpError("no such folder or file.")
    inputs = {**made_by, "inputs_sha256": inputs_of(path)}
    if is_done(out, name, inputs):
        return f"{printable(path)}: done before"
    with opened(path) as folder:
        found = features_of(folder, settings, encode, bar.update)
    rows, missing, filled, foreign = found
    about = {
        "source": os.fspath(path),
        "keyframes": len(rows),
        "spectrograms_missing": missing,
        "spectrograms_filled": filled,
        "spectrograms_foreign": foreign,
        "jax": version("jax"),
        "command": sys.argv,
        **inputs,
    }
    write(out, name, rows, about)
    notes = [f"{len(rows)} keyframes"]
    notes += [f"{missing} without sound"] if missing else []
    notes += [f"{filled} whose sound ends early"] if filled else []
    if foreign:
        notes.append(f"{foreign} whose spectrogram is not VisXP's (see visxp doctor)")
    return f"{printable(path)}: {', '.join(notes)}"


def digest_of_input(path: Path) -> str:
    """sha256 of a file of the command line.

    Raises:
        VisxpError: it cannot be read.
    """
    try:
        return digest(path)
    except OSError as error:
        raise VisxpError(f"{path} cannot be read: {error.strerror}.") from error


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 if all folders were extracted, 2 if any was not."""
    parser = argparse.ArgumentParser(
        prog="python -m visxp_jax.production.extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDERS")
    parser.add_argument("--checkpoint", required=True, type=Path, help=".tar of torch")
    parser.add_argument("--config", required=True, type=Path, help="its .yml")
    parser.add_argument("--out", required=True, type=Path, help="folder of features")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failed = run(args.folders, args.checkpoint, args.config, args.out)
    except VisxpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; folders that are done are kept.", file=sys.stderr)
        return 130
    if failed:
        print(f"error: {failed} of {len(args.folders)} were skipped.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
