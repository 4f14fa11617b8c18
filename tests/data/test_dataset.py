import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visxp_jax.data.dataset import open_dataset
from visxp_jax.errors import VisxpError

SHARD = "visxp_clips/1.0.0/visxp_clips-train.tfrecord-00000-of-00001"


@pytest.fixture
def prepared(tmp_path):
    """The files of a prepared data set, as far as `open_dataset` looks into them."""
    (tmp_path / SHARD).parent.mkdir(parents=True)
    (tmp_path / SHARD).write_bytes(b"x" * 1000)
    index = pa.table(
        {
            "split": ["test", "train", "train"],
            "clip_id": [0, 0, 1],
            "position": [0, 1, 0],
            "silent": [False, False, True],
            "video": ["a", "b", "b"],
        }
    )
    pq.write_table(index, tmp_path / "clips.parquet")
    options = {
        "videos": "/videos",
        "spectrogram": "mel",
        "size_px": 64,
        "file_format": "tfrecord",
    }
    text = {
        "options": options,
        "inputs_sha256": "0" * 64,
        "builder_dir": "visxp_clips/1.0.0",
        "label_names": ["bell"],
        "manifest_sha256": "0" * 64,
        "counts": {
            "train": {"clips": 2, "usable": 1},
            "test": {"clips": 1, "usable": 1},
        },
        "shards": {SHARD: 1000},
        "files": {"clips.parquet": (tmp_path / "clips.parquet").stat().st_size},
    }
    (tmp_path / "prepared.json").write_text(json.dumps(text))
    return tmp_path


def test_dataset_says_what_it_is(prepared):
    dataset = open_dataset(prepared)
    assert dataset.builder_dir == prepared / "visxp_clips/1.0.0"
    assert (dataset.file_format, dataset.spectrogram) == ("tfrecord", "mel")
    assert (dataset.size_px, dataset.label_names) == (64, ["bell"])
    assert dataset.num_bytes == 1000
    assert [dataset.num_clips(s) for s in ("train", "validation", "test")] == [2, 0, 1]
    assert dataset.num_usable("train") == 1


def test_index_holds_one_split_as_numpy(prepared):
    index = open_dataset(prepared).index("train")
    assert "split" not in index
    np.testing.assert_array_equal(index["clip_id"], [0, 1])
    np.testing.assert_array_equal(index["position"], [1, 0])
    np.testing.assert_array_equal(index["silent"], [False, True])
    assert list(index["video"]) == ["b", "b"]


def test_missing_shard_is_named(prepared):
    (prepared / SHARD).unlink()
    with pytest.raises(VisxpError, match=f"shard .*{SHARD} is missing"):
        open_dataset(prepared)


def test_truncated_shard_is_named_with_its_offset(prepared):
    (prepared / SHARD).write_bytes(b"x" * 600)
    message = f"{SHARD} is truncated: 600 bytes, 1000 expected; .* at offset 600"
    with pytest.raises(VisxpError, match=message):
        open_dataset(prepared)


def test_unfinished_data_are_refused(tmp_path):
    with pytest.raises(VisxpError, match="prepared.json is missing"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"options": {}}'])
def test_prepared_json_of_other_content_is_refused(prepared, text):
    (prepared / "prepared.json").write_text(text)
    with pytest.raises(VisxpError, match="is damaged: it lacks .*shards"):
        open_dataset(prepared)


@pytest.mark.parametrize("name", ["prepared.json", "clips.parquet"])
def test_damaged_file_is_named(prepared, name):
    size = (prepared / name).stat().st_size
    (prepared / name).write_bytes(b"x" * size)
    with pytest.raises(VisxpError, match=f"{name} is damaged: .*prepare"):
        open_dataset(prepared).index("train")
