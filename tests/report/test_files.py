"""What the page says of the input files."""

import csv
from types import SimpleNamespace

from visxp_jax.report.files import data_rows, flagged

PLAIN = {
    "status": "kept",
    "reason": "",
    "mismatched": "0",
    "no_audio": "0",
    "partial": "0",
    "silent": "0",
    "still": "0",
}


def dataset(folder, **files):
    """A data set whose manifest has these changes of a plain row, by file."""
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", *PLAIN])
        writer.writeheader()
        writer.writerows({"file": name} | PLAIN | row for name, row in files.items())
    return SimpleNamespace(dir=folder, counts={"test": {"clips": 8, "silent": 1}})


def test_flags_name_the_first_files_that_carry_them(tmp_path):
    mute = {"no_audio": "3"}
    data = dataset(
        tmp_path,
        plain={},
        a=mute,
        b=mute,
        c=mute,
        d=mute,
        long={"mismatched": "1", "partial": "2"},
        hurt={"status": "partial", "still": "1"},
        broken={"status": "skipped", "reason": "an empty file", "no_audio": "1"},
    )
    assert flagged(data) == [
        "1 files with sound over a second longer or shorter than the pictures: long",
        "4 files with clips without sound: a, b, c, ...",
        "1 files with clips that lack a part of their sound: long",
        "1 files with still pictures: hurt",
        "1 files with damage: hurt",
    ]
    assert data_rows(data) == [
        ("files kept", "6"),
        ("files partial", "1"),
        ("files skipped", "1"),
        ("skipped: an empty file", "1"),
        ("test: clips", "8"),
        ("test: silent", "1"),
    ]


def test_nothing_to_flag_is_no_line(tmp_path):
    assert flagged(dataset(tmp_path, plain={})) == []
