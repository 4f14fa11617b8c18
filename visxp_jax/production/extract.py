"""VisXP's features of VisXP's folders, without PyTorch.

    visxp folders FOLDERS --checkpoint=model.tar --config=model.yml --out=features

FOLDERS are such folders, tar.gz of one, or folders of these. For each writes
features/NAME.pt as the original does: a NumPy file of float32 rows, one for each
keyframe in the order of time: ms, first and last ms of its shot or -1 -1, 512 numbers
of sound if the network has ears, 512 of sight; and NAME.json beside it, which says what
made them, and how many keyframes the folder's own list has more. Folders that are done,
and have not changed since, are left alone; one that cannot be used is named and
skipped.
"""

import hashlib
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from visxp_jax import __version__
from visxp_jax.atomic import write_whole
from visxp_jax.command_line import Parser, add_strict, command, tell_skipped, without
from visxp_jax.errors import VisxpError
from visxp_jax.hosts import add_shard, parse_shard
from visxp_jax.media import printable
from visxp_jax.production.checkpoint import (
    digest,
    make_encoder,
    published,
    read_state,
)
from visxp_jax.production.features import (
    End,
    FolderFeatures,
    Item,
    features_of,
    read_folders,
)
from visxp_jax.production.folder import KINDS, SHOTS, folders_of, name_of
from visxp_jax.production.settings import read_settings
from visxp_jax.progress import progress_bar
from visxp_jax.streams import read_ahead

WAITING = 8  # keyframes between who reads and who encodes
# On CPUs the rate is the same for all sizes, and less of the last batch is filling.
BATCH_CPU, BATCH = 4, 64


def inputs_of(path: Path) -> str:
    """Digest of names, sizes and times of change: whether an input is what it was.

    Of a folder only what is looked at counts.
    """
    files = [path]
    if path.is_dir():  # which may be a link, as the folders in it may
        parts = [path / name for name in (*KINDS, SHOTS.parent)]
        files = sorted(x for part in parts if part.is_dir() for x in part.iterdir())
    told = hashlib.sha256()
    for file in files:
        found = file.stat() if file.exists() else file.lstat()
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
    names = {path: name_of(path) for path in folders}
    twice = [
        name for name, count in Counter(map(name_of, folders)).items() if count > 1
    ]
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
    notes = {"jax": version("jax"), "command": without(folders)}
    inputs: dict[Path, dict[str, str]] = {}  # of what is being read
    failed = keyframes = 0

    def to_do() -> Iterator[Path]:
        for path, name in names.items():
            # What cannot be looked at is refused where it is opened.
            with suppress(OSError):
                inputs[path] = {**made_by, "inputs_sha256": inputs_of(path)}
                if is_done(out, name, inputs[path]):
                    tqdm.write(f"{printable(path)}: done before")
                    bar.update()
                    continue
            yield path

    def read(stopped: Callable[[], bool]) -> Generator[Item | End]:
        return read_folders(to_do(), settings, stopped)

    with (
        progress_bar(desc="extract", unit="folder", total=len(folders)) as bar,
        closing(read_ahead(read, WAITING)) as items,
    ):
        begun = time.monotonic()
        size = BATCH_CPU if jax.default_backend() == "cpu" else BATCH
        for path, found in features_of(items, settings, encode, batch_size=size):
            try:
                if isinstance(found, Exception):
                    raise found
                about = {**about_features(path, found), **notes, **inputs.pop(path)}
                write(out, names[path], found.rows, about)
            # One that fails in whatever way must not cost the others their night.
            except Exception as error:
                failed += 1
                kind = "" if isinstance(error, VisxpError) else type(error).__name__
                told = " ".join(f"{kind} {error}".split())
                tqdm.write(f"skipped: {printable(path)}: {told}", file=sys.stderr)
            else:
                tqdm.write(f"{printable(path)}: {summary(found)}")
                keyframes += len(found.rows)
            rate = keyframes / (time.monotonic() - begun)
            told = f"{keyframes} keyframes, {rate:.0f} keyframes/s"
            bar.set_postfix_str(told, refresh=False)
            bar.update()
    return failed


def about_features(path: Path, found: FolderFeatures) -> dict[str, object]:
    """What is written beside the features of a folder."""
    return {
        "source": os.fspath(path),
        "keyframes": len(found.rows),
        "keyframes_lost": found.lost,
        "spectrograms_missing": found.missing,
        "spectrograms_filled": found.filled,
        "spectrograms_foreign": found.foreign,
    }


def summary(found: FolderFeatures) -> str:
    """What to say of the features of a folder."""
    notes = [f"{len(found.rows)} keyframes"]
    notes += [f"{found.lost} more of its list are not there"] if found.lost else []
    notes += ["its list of them cannot be read"] if found.lost is None else []
    notes += [f"{found.missing} without sound"] if found.missing else []
    notes += [f"{found.filled} whose sound ends early"] if found.filled else []
    if found.foreign:
        notes.append(
            f"{found.foreign} whose spectrogram is not VisXP's (see visxp doctor)"
        )
    return ", ".join(notes)


def digest_of_input(path: Path) -> str:
    """sha256 of a file of the command line.

    Raises:
        VisxpError: it cannot be read.
    """
    try:
        return digest(path)
    except OSError as error:
        raise VisxpError(f"{path} cannot be read: {error.strerror}.") from error


@command("stopped; folders that are done are kept.")
def main(argv: list[str] | None = None) -> None:
    """Entry point; a mistake if all folders were skipped."""
    parser = Parser("visxp folders", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDERS")
    parser.add_argument("--checkpoint", required=True, type=Path, help=".tar of torch")
    parser.add_argument("--config", required=True, type=Path, help="its .yml")
    parser.add_argument("--out", required=True, type=Path, help="folder of features")
    add_shard(parser)
    add_strict(parser)
    args = parser.parse_args(argv)
    shard = parse_shard(args.shard)
    every = folders_of(args.folders, args.out)
    folders = [x for x in every if shard.has(Path(os.path.abspath(x)))]
    failed = run(folders, args.checkpoint, args.config, args.out)
    tell_skipped(failed, len(folders), strict=args.strict)


if __name__ == "__main__":
    sys.exit(main())
