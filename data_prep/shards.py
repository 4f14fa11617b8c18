"""From parts and manifest rows to a finished data set."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.builder import NAME, Video, read_index
from data_prep.manifest import VideoRow, manifest_csv
from data_prep.parts import PartTask, read_part
from data_prep.splits import assign_splits
from visxp_jax.atomic import write_whole
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.data.dataset import INDEX, MANIFEST, PREPARED, SPLITS
from visxp_jax.errors import VisxpError

_PACKAGES = ("av", "numpy", "pillow", "librosa", "pyarrow", "tensorflow-datasets")


def write_dataset(
    tasks: list[PartTask],
    rows: list[VideoRow],
    out: Path,
    options: dict[str, Any],
    *,
    inputs: str,
    progress: bool,
    write: Callable[..., Path],
) -> None:
    """Divide the videos, write shards, index and manifest, and last `prepared.json`.

    Args:
        tasks: All files, sorted by name; those kept have parts.
        rows: Of each task; the split is filled in.
        out: Where everything goes; shards of an unfinished call are replaced.
        options: Kept in `prepared.json`.
        inputs: Fingerprint of the sources, also kept.
        progress: Show it on stderr.
        write: Writes the shards, called like `builder.write_shards`.

    Raises:
        VisxpError: what was read back is not what was to be written.
    """
    kept = [(t, r) for t, r in zip(tasks, rows, strict=True) if r.status != "skipped"]
    # Videos without sound are divided by themselves: they must not fill up a split.
    splits: dict[str, str] = {}
    for has_sound in (True, False):
        groups = {r.file: r.label for _, r in kept if r.has_sound == has_sound}
        splits |= assign_splits(
            groups, fractions=options["fractions"], seed=options["seed"]
        )
    label_names = sorted({row.label for _, row in kept} - {""})
    label_of = {"": -1} | {name: i for i, name in enumerate(label_names)}
    videos: dict[str, list[Video]] = {split: [] for split in SPLITS}
    num_clips: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for video_id, (task, row) in enumerate(kept):
        split = row.split = splits[row.file]
        clips = partial(read_part, task)
        label = label_of[row.label]
        video = Video(row.file, video_id, label, num_clips[split], clips)
        videos[split].append(video)
        num_clips[split] += row.clips

    shutil.rmtree(out / NAME, ignore_errors=True)
    preset = PRESETS[options["spectrogram"]]
    builder_dir = write(
        videos,
        out,
        scratch=tasks[0].folder / "downloads",
        log_mel_shape=preset.shape,
        size_px=options["size_px"],
        file_format=options["file_format"],
        progress=progress,
    )
    index = read_index(builder_dir)
    _check_index(index, [row for _, row in kept])
    unfinished = out / f"{INDEX}.tmp"
    pq.write_table(index, unfinished)
    unfinished.replace(out / INDEX)
    write_whole(out / MANIFEST, manifest_csv(rows))
    # Hidden files come and go, and the data are the same.
    seen = [r for t, r in zip(tasks, rows, strict=True) if not t.source.hidden]

    shards = {p for p in builder_dir.iterdir() if p.suffix != ".json"}
    others = {p for p in builder_dir.iterdir() if p.suffix == ".json"}
    others |= {out / INDEX, out / MANIFEST}
    prepared = {
        "options": options,
        "inputs_sha256": inputs,
        "manifest_sha256": hashlib.sha256(manifest_csv(seen).encode()).hexdigest(),
        "builder_dir": str(builder_dir.relative_to(out)),
        "label_names": label_names,
        "counts": _counts(index),
        "shards": _sizes(shards, out),
        "files": _sizes(others, out),
        "spectrogram": dataclasses.asdict(preset),
        "versions": {name: _version(name) for name in _PACKAGES},
    }
    write_whole(out / PREPARED, json.dumps(prepared, indent=2))


def _check_index(index: pa.Table, rows: list[VideoRow]) -> None:
    """What is in the shards must be what the parts held, each clip once."""
    expected = {row.file: row.clips for row in rows}
    found: dict[str, int] = {}
    for entry in index["video"].value_counts():
        found[entry["values"].as_py()] = entry["counts"].as_py()
    numbered = all(
        index.filter(pc.field("split") == split)["clip_id"].to_pylist()
        == list(range(count))
        for split, count in _split_sizes(index).items()
    )
    if found != expected or not numbered:
        raise VisxpError(
            f"the shards must hold the {sum(expected.values())} clips of "
            f"{len(expected)} videos, got {sum(found.values())} of {len(found)}; "
            "run the same command again."
        )


def _split_sizes(index: pa.Table) -> dict[str, int]:
    names = index["split"].to_pylist()
    return {split: names.count(split) for split in SPLITS if split in set(names)}


def _counts(index: pa.Table) -> dict[str, dict[str, int]]:
    counts = {}
    for split in _split_sizes(index):
        rows = index.filter(pc.field("split") == split)
        heard, silent = rows["has_audio"].to_numpy(), rows["silent"].to_numpy()
        counts[split] = {
            "videos": len(rows["video_id"].unique()),
            "clips": len(rows),
            "usable": int((heard & ~silent).sum()),
            "no_audio": int((~heard).sum()),
            "silent": int(silent.sum()),
            "still": int(rows["still"].to_numpy().sum()),
            "partial": int(rows["partial"].to_numpy().sum()),
        }
    return counts


def _sizes(paths: set[Path], out: Path) -> dict[str, int]:
    return {str(p.relative_to(out)): p.stat().st_size for p in sorted(paths)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
