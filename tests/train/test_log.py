"""The file of metrics: valid JSON always, and no step twice after a crash."""

import gc
import json
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.train.log import JsonlWriter, make_writers, read_jsonl


def written(path, *rows, first_step: int = 0) -> list[dict]:
    """Rows of the file after a writer that begins at a step has written some."""
    writer = JsonlWriter(path, first_step=first_step)
    for step, scalars in rows:
        writer.write_scalars(step, scalars)
    writer.close()
    return read_jsonl(path)


def test_writer_writes_one_object_per_line_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = written(path, (1, {"loss": 0.5}), (2, {"loss": 0.25, "rate": 3}))
    assert rows == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "rate": 3.0}]
    assert len(path.read_text().splitlines()) == 2


def test_writer_writes_texts_as_they_are(tmp_path):
    writer = JsonlWriter(tmp_path / "m", first_step=0)
    writer.write_texts(3, {"skipped_clips": 'a "b".mp4 at 0:02'})
    writer.close()
    assert read_jsonl(tmp_path / "m") == [
        {"step": 3, "skipped_clips": 'a "b".mp4 at 0:02'}
    ]


def test_writer_takes_numbers_of_numpy_and_jax(tmp_path):
    scalars = {"a": np.float32(0.5), "b": jnp.float32(0.25), "c": np.int64(7)}
    rows = written(tmp_path / "m", (np.int32(4), scalars))
    assert rows == [{"step": 4, "a": 0.5, "b": 0.25, "c": 7.0}]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32("nan")])
def test_writer_makes_null_of_what_json_has_not(tmp_path, value):
    def refuse(name: str):
        raise AssertionError(name)

    path = tmp_path / "metrics.jsonl"
    written(path, (1, {"loss": value, "other": 1.0}))
    row = json.loads(path.read_text(), parse_constant=refuse)
    assert row == {"step": 1, "loss": None, "other": 1.0}


def test_writer_that_goes_on_drops_what_will_be_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, *((step, {"loss": float(step)}) for step in (1, 2, 3, 4)))
    rows = written(path, (3, {"loss": 30.0}), first_step=2)
    assert [(r["step"], r["loss"]) for r in rows] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_writer_that_goes_on_drops_labels_and_chance_that_come_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(
        path,
        (1, {"relabel/sweeps": 3.0}),
        (2, {"loss": 2.0}),
        (2, {"chance/loss": 0.7}),
        (2, {"relabel/sweeps": 5.0}),
    )
    writer = JsonlWriter(path, first_step=3)
    writer.write_texts(2, {"skipped_clips": "a.mp4 at 3 s"})
    writer.close()
    rows = written(path, first_step=2)
    assert rows == [{"step": 1, "relabel/sweeps": 3.0}, {"step": 2, "loss": 2.0}]


def test_writer_that_begins_anew_drops_everything(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, (0, {"loss": 1.0}), (5, {"loss": 2.0}))
    assert written(path) == []


def test_line_cut_off_by_a_crash_is_left_out_and_not_written_into(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, (1, {"loss": 1.0}), (2, {"loss": 2.0}))
    path.write_text(path.read_text()[:-8])
    assert read_jsonl(path) == [{"step": 1, "loss": 1.0}]
    rows = written(path, (2, {"loss": 3.0}), first_step=1)
    assert rows == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 3.0}]


def test_no_file_and_an_empty_one_have_no_rows(tmp_path):
    assert read_jsonl(tmp_path / "none.jsonl") == []
    (tmp_path / "empty.jsonl").touch()
    assert read_jsonl(tmp_path / "empty.jsonl") == []


def test_lines_that_are_no_rows_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'5\n{"a": 1}\n{"step": null}\n\xff\n{"step": 1, "loss": 2.0}\n')
    assert read_jsonl(path) == [{"step": 1, "loss": 2.0}]


def test_make_writers_without_tensorboard_writes_metrics_alone(tmp_path):
    writers, hooks = make_writers(
        tmp_path, first_step=0, last_step=9, tensorboard=False
    )
    for writer in writers:
        writer.write_scalars(1, {"loss": 1.0})
        writer.close()
    assert hooks == []
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.0}]


def test_writer_leaves_no_file_open(tmp_path):
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        written(tmp_path / "metrics.jsonl", (1, {"loss": 1.0}))
        gc.collect()
    assert [str(w.message) for w in caught if "metrics.jsonl" in str(w.message)] == []
