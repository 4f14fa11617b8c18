"""Prepared data on disk: what is there, and whether all of it is."""

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from visxp_jax.errors import VisxpError

SPLITS = ("train", "validation", "test")
PREPARED = "prepared.json"
MANIFEST = "manifest.csv"
INDEX = "clips.parquet"
# What `prepared.json` holds, and its options; those read here.
KEYS = {"options", "inputs_sha256", "manifest_sha256", "builder_dir", "label_names"}
KEYS |= {"counts", "shards", "files"}
OPTIONS = {"videos", "file_format", "spectrogram", "size_px"}


@dataclass(frozen=True)
class PreparedDataset:
    """A finished data set whose shards have been checked.

    Attributes:
        dir: What `data_prep.prepare` wrote.
        builder_dir: The shards, for `tfds.builder_from_directory`.
        videos: The folder the clips were cut from, as it was then.
        file_format: 'tfrecord' or 'array_record'.
        spectrogram: Name of the preset.
        size_px: Frames are size_px x size_px.
        label_names: Label i is label_names[i].
        manifest_sha256: Names the data: which files, what became of each; hidden ones
            do not count.
        num_bytes: Of all shards.
        counts: Of each split: clips, and how many of them carry which flag.
    """

    dir: Path
    builder_dir: Path
    videos: Path
    file_format: str
    spectrogram: str
    size_px: int
    label_names: list[str]
    manifest_sha256: str
    num_bytes: int
    counts: dict[str, dict[str, int]] = field(repr=False)

    def num_clips(self, split: str) -> int:
        """Clips of a split, 0 if there is none."""
        return self.counts.get(split, {}).get("clips", 0)

    def num_usable(self, split: str) -> int:
        """Clips of a split with sound that is not silent."""
        return self.counts.get(split, {}).get("usable", 0)

    def num_usable_videos(self, split: str) -> int:
        """Videos of a split with such a clip."""
        index = self.index(split)
        return len(np.unique(index["video_id"][index["has_audio"] & ~index["silent"]]))

    def shards(self, split: str) -> list[Path]:
        """Files of a split, in the order of their records."""
        named = f"-{split}.{self.file_format}-"
        return sorted(p for p in self.builder_dir.iterdir() if named in p.name)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Columns of `clips.parquet` for one split, sorted by clip_id.

        `position` is where a clip's record stands in the split when its shards are read
        one after another.
        """
        rows = self._index.filter(pc.field("split") == split)
        return {
            name: rows[name].to_numpy() for name in rows.column_names if name != "split"
        }

    @cached_property
    def _index(self) -> pa.Table:
        try:
            return pq.read_table(self.dir / INDEX)
        except (OSError, pa.ArrowException) as error:
            raise damaged(self.dir / INDEX, error) from error


def open_dataset(dir: Path) -> PreparedDataset:
    """Open what `data_prep.prepare` wrote; every shard is checked for its size.

    Raises:
        VisxpError: preparation has not finished, or a file is missing or truncated.
    """
    dir = Path(dir)
    try:
        prepared = read_prepared(dir)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VisxpError(
            f"{dir} must hold prepared data, but {PREPARED} is missing; run "
            f"`python -m data_prep.prepare VIDEOS --out {dir}`, again if it was "
            "stopped."
        ) from error
    options = prepared["options"]
    for kind in ("shard", "file"):
        for name, expected in prepared[f"{kind}s"].items():
            _check_size(kind, dir / name, expected)
    return PreparedDataset(
        dir=dir,
        builder_dir=dir / prepared["builder_dir"],
        # Kept relative where they lie beside the data, so that both may move.
        videos=Path(os.path.normpath(dir / options["videos"])),
        file_format=options["file_format"],
        spectrogram=options["spectrogram"],
        size_px=options["size_px"],
        label_names=prepared["label_names"],
        manifest_sha256=prepared["manifest_sha256"],
        num_bytes=sum(prepared["shards"].values()),
        counts=prepared["counts"],
    )


def read_prepared(dir: Path) -> dict[str, Any]:
    """What `data_prep.prepare` notes last.

    Raises:
        FileNotFoundError: preparation has not finished.
        VisxpError: it is not what was written.
    """
    try:
        prepared = json.loads((dir / PREPARED).read_text(encoding="utf-8"))
        prepared = prepared if isinstance(prepared, dict) else {}
    except ValueError as error:
        raise damaged(dir / PREPARED, error) from error
    for keys, values in ((KEYS, prepared), (OPTIONS, prepared.get("options"))):
        missing = keys - set(values if isinstance(values, dict) else ())
        if missing:
            raise damaged(dir / PREPARED, f"it lacks {', '.join(sorted(missing))}")
    return prepared


def damaged(path: Path, error: object) -> VisxpError:
    """What to raise for a file whose bytes have changed; `error` says where."""
    return VisxpError(
        f"{path} is damaged: {' '.join(str(error).split())}; restore it, or prepare "
        "the data again into another folder."
    )


def _check_size(kind: str, path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError as error:
        raise VisxpError(
            f"{kind} {path} is missing; restore it, or prepare the data again into "
            "another folder."
        ) from error
    if found != expected:
        state = "truncated" if found < expected else "too long"
        raise VisxpError(
            f"{kind} {path} is {state}: {found} bytes, {expected} expected; the file "
            f"ends at offset {found}; restore it, or prepare the data again into "
            "another folder."
        )
