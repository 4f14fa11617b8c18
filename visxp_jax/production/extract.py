"""VisXP's features of VisXP's folders, without PyTorch.

    python -m visxp_jax.production.extract FOLDERS --checkpoint=checkpoint.tar \
        --config=model_config.yml --out=features

For each folder, or tar.gz of one, writes features/NAME.pt as the original does: a NumPy
file of float32 rows, one for each keyframe in the order of time: ms, first and last ms
of its shot or -1 -1, 512 numbers of sound if the network has ears, 512 of sight; and
NAME.json beside it, which says what made them. Folders that are done are left alone.
"""

import argparse
import io
import json
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
    name_of,
    opened,
    read_keyframe,
    read_spectrogram,
)
from visxp_jax.production.settings import Settings, read_settings
from visxp_jax.progress import progress_bar

BATCH = 32
# What features of the same network have in common.
SAME = ("checkpoint_sha256", "config_sha256")
SILENCE = PRESETS["visxp"].silence  # of stored spectrograms


class Item(NamedTuple):
    """A keyframe and its second of sound, as the network takes them."""

    time_ms: int
    image: np.ndarray  # float32 [h, w, 3]
    sound: np.ndarray | None  # float32 [bands, frames]; None if there is none


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
            sound = read_spectrogram(path, audio, SILENCE)
    return Item(time_ms, image, sound)


def read_items(folder: Folder, settings: Settings) -> Iterator[Item]:
    """All in the order of time, read ahead by a few threads."""
    with ThreadPoolExecutor() as pool:
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


def features_of(
    folder: Folder,
    settings: Settings,
    encode: Callable,
    done: Callable[[int], object] = lambda _: None,
) -> tuple[np.ndarray, int]:
    """Rows of one folder, and how many of them lack their sound.

    Args:
        folder: From `opened`.
        settings: Of the network.
        encode: From `make_encoder`.
        done: Is told of each batch how many rows it had.

    Returns:
        (float32 [keyframes, 3 + 512 or 3 + 1024], number of spectrograms that are not
        there: the network is given zeros instead, as by the original).
    """
    rows, batch, missing = [], [], 0
    audio = settings.audio

    def encoded() -> None:
        image = np.zeros((BATCH, *settings.size, 3), np.float32)
        sound = None
        if audio is not None:
            sound = np.zeros((BATCH, audio.bands, audio.frames), np.float32)
        for i, item in enumerate(batch):
            image[i] = item.image
            if sound is not None and item.sound is not None:
                sound[i] = item.sound
        parts = [part for part in encode(image, sound) if part is not None]
        where = [(item.time_ms, *folder.shot_at(item.time_ms)) for item in batch]
        rows.append(
            np.concatenate(
                [np.array(where, np.float32), *(p[: len(batch)] for p in parts)], axis=1
            )
        )
        done(len(batch))
        batch.clear()

    for item in read_items(folder, settings):
        missing += audio is not None and item.sound is None
        batch.append(item)
        if len(batch) == BATCH:
            encoded()
    if batch:
        encoded()
    return np.concatenate(rows), missing


def write(out: Path, name: str, rows: np.ndarray, about: dict[str, object]) -> None:
    """NAME.pt and NAME.json, each whole or not at all; the latter says that all is."""
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=False)
    write_whole(out / f"{name}.pt", file.getvalue())
    write_whole(out / f"{name}.json", json.dumps(about, indent=2))


def is_done(out: Path, name: str, made_by: dict[str, object]) -> bool:
    """Whether the same network has made these features."""
    try:
        about = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        same = all(about[key] == made_by[key] for key in SAME)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return same and (out / f"{name}.pt").exists()


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
    settings = read_settings(config)
    encode = make_encoder(published(read_state(checkpoint), settings, checkpoint))
    made_by = {
        "visxp_jax": __version__,
        "jax": version("jax"),
        "checkpoint": os.fspath(checkpoint),
        "checkpoint_sha256": digest(checkpoint),
        "config_sha256": digest(config),
        "command": sys.argv,
    }
    failed = 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        with progress_bar(desc="extract", unit="keyframe") as bar:
            for path, name in zip(folders, names, strict=True):
                if is_done(out, name, made_by):
                    tqdm.write(f"{printable(path)}: done before")
                    continue
                try:
                    with opened(path) as folder:
                        rows, missing = features_of(
                            folder, settings, encode, bar.update
                        )
                except VisxpError as error:
                    failed += 1
                    tqdm.write(f"skipped: {error}", file=sys.stderr)
                    continue
                about = {
                    "source": os.fspath(path),
                    "keyframes": len(rows),
                    "spectrograms_missing": missing,
                    **made_by,
                }
                write(out, name, rows, about)
                note = f", {missing} without sound" if missing else ""
                tqdm.write(f"{printable(path)}: {len(rows)} keyframes{note}")
    except OSError as error:
        raise VisxpError(f"cannot write to {out}: {error}.") from error
    return failed


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
