"""Batches are filled across folders, and each folder gets its own rows all the same."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.production.folders import AUDIO, PLAIN, folder, packed
from visxp_jax.errors import VisxpError
from visxp_jax.production.features import (
    ARCHIVES,
    End,
    FolderFeatures,
    features_of,
    read_folders,
)
from visxp_jax.production.settings import Settings

BATCH = 32
SETTINGS = Settings(True, 5, (8, 8), PLAIN, AUDIO)


def all_of(paths, encode):
    items = read_folders(paths, SETTINGS)
    return features_of(items, SETTINGS, encode, batch_size=BATCH)


class Encode:
    """The mean of the sound and of the first colour, and how it was called."""

    def __init__(self) -> None:
        self.shapes = []

    def __call__(self, image, sound):
        self.shapes.append((image.shape, sound.shape))
        return sound.mean((1, 2))[:, None], image[..., :1].mean((1, 2))


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield
    assert not list(scratch.iterdir())


def test_rows_are_those_of_each_folder_alone(tmp_path):
    paths = []
    for i in range(9):
        times = [100 * i + 10 * k for k in range(3 + 5 * i)]
        path = folder(tmp_path / str(i), times)
        paths.append(packed(path, tmp_path / f"{i}.tgz") if i % 2 else path)
    (paths[2] / "spectrograms" / "220_24000.npz").unlink()
    together = Encode()
    found = list(all_of(paths, together))
    assert [path for path, _ in found] == paths
    keyframes = sum(len(features.rows) for _, features in found)
    assert keyframes == sum(3 + 5 * i for i in range(9))
    shapes = ((BATCH, 8, 8, 3), (BATCH, 257, 99))
    assert together.shapes == [shapes] * -(-keyframes // BATCH)
    for path, features in found:
        ((_, alone),) = all_of([path], Encode())
        np.testing.assert_array_equal(features.rows, alone.rows)
        assert features[1:] == alone[1:]
        assert np.ptp(features.rows[:, -1]) > 0
    # Numbers in JSON as well: not true and false.
    assert json.dumps([x[1:] for _, x in found[:3]]) == (
        "[[0, 0, 0, 3], [0, 0, 0, 8], [0, 1, 0, 12]]"
    )


def test_one_that_cannot_be_used_costs_the_others_nothing(tmp_path):
    paths = [folder(tmp_path / name, range(0, 500, 10)) for name in "abc"]
    (paths[1] / "keyframes" / "40.jpg").write_bytes(b"")
    encode = Encode()
    paths.insert(2, tmp_path / "none")
    found = dict(all_of(paths, encode))
    assert [isinstance(x, FolderFeatures) for x in found.values()] == [1, 0, 0, 1]
    assert "40.jpg' must be a JPEG" in str(found[paths[1]])
    assert str(found[paths[2]]) == "no such folder or file."
    # What comes after a broken picture is not encoded.
    assert len(encode.shapes) == 4


def test_vectors_that_are_not_finite_are_refused_folder_by_folder(tmp_path):
    paths = [folder(tmp_path / name) for name in "ab"]

    def encode(image, sound):
        first = np.arange(BATCH)[:, None] < 3
        return np.where(first, np.nan, 0.0), np.zeros((BATCH, 1))

    (_, bad), (_, good) = all_of(paths, encode)
    assert isinstance(bad, VisxpError)
    assert good.rows.shape == (3, 5)


def test_few_archives_are_unpacked_at_a_time(tmp_path):
    few = [folder(tmp_path / str(i), [500]) for i in range(12)]
    paths = [packed(path, tmp_path / f"{path.name}.tgz") for path in few]
    scratch = Path(tempfile.gettempdir())
    counts = []
    for _ in read_folders(paths, SETTINGS):
        counts.append(len(list(scratch.iterdir())))
    assert len(counts) == 24
    assert max(counts) <= ARCHIVES


def test_nothing_is_left_of_a_job_that_is_given_up(tmp_path):
    paths = [
        packed(folder(tmp_path / name, range(40)), tmp_path / f"{name}.tgz")
        for name in "abcd"
    ]
    items = read_folders(paths, SETTINGS)
    next(items)
    items.close()
    stopped = list(read_folders(paths, SETTINGS, lambda: True))
    assert not [item for item in stopped if isinstance(item, End)]
