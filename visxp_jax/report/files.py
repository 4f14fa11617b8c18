"""What became of the input files, for the page."""

import csv
from collections import Counter
from collections.abc import Callable

from visxp_jax.data.dataset import MANIFEST, PreparedDataset


def data_rows(dataset: PreparedDataset) -> list[tuple[str, str]]:
    """What became of the input files, and how many clips carry which flag."""
    manifest = read_manifest(dataset)
    status = Counter(row["status"] for row in manifest)
    reasons = Counter(row["reason"] for row in manifest if row["status"] == "skipped")
    rows = [(f"files {name}", str(count)) for name, count in status.items()]
    rows += [(f"skipped: {why}", str(count)) for why, count in reasons.most_common(10)]
    for split, counts in dataset.counts.items():
        rows += [(f"{split}: {name}", str(count)) for name, count in counts.items()]
    return rows


def read_manifest(dataset: PreparedDataset) -> list[dict[str, str]]:
    """A row for each input file."""
    with (dataset.dir / MANIFEST).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def flagged(dataset: PreparedDataset) -> list[str]:
    """A line for each kind of flag, with the first files that carry it."""
    kinds: dict[str, Callable[[dict[str, str]], bool]] = {
        "sound over a second longer or shorter than the pictures": lambda row: (
            row["mismatched"] == "1"
        ),
        "clips without sound": lambda row: int(row["no_audio"]) > 0,
        "clips that lack a part of their sound": lambda row: int(row["partial"]) > 0,
        "silent clips": lambda row: int(row["silent"]) > 0,
        "still pictures": lambda row: int(row["still"]) > 0,
        "damage": lambda row: row["status"] == "partial",
    }
    kept = [row for row in read_manifest(dataset) if row["status"] != "skipped"]
    lines = []
    for kind, carries in kinds.items():
        files = [row["file"] for row in kept if carries(row)]
        if files:
            more = ", ..." if len(files) > 3 else ""
            lines.append(
                f"{len(files)} files with {kind}: {', '.join(files[:3])}{more}"
            )
    return lines
