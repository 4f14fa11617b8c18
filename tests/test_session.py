"""What a run refuses before it writes anything."""

import dataclasses

import jax
import pytest

from data_prep.prepare import prepare
from tests.small import small_config
from tests.videos import write_video
from visxp_jax.config import TrainConfig
from visxp_jax.data.dataset import PreparedDataset, open_dataset
from visxp_jax.errors import VisxpError
from visxp_jax.session import CHECKPOINTS, check_fits, check_start


@pytest.fixture(scope="module")
def three_videos(tmp_path_factory) -> PreparedDataset:
    """One video for each split."""
    folder = tmp_path_factory.mktemp("three")
    for i in range(3):
        write_video(folder / "videos" / f"{i}.mp4", seconds=4)
    prepare(
        folder / "videos",
        folder / "data",
        spectrogram="mel",
        size_px=32,
        file_format="array_record",
        workers=1,
        progress=False,
    )
    return open_dataset(folder / "data")


def config(**changes) -> TrainConfig:
    settings = {"data.size_px": 32, "avc.shifts": 1, "selflabel.shifts": 1}
    return small_config(**{**settings, **changes})


def test_training_on_one_video_is_refused(three_videos):
    """There would be no mismatched pair, and nothing to learn."""
    assert three_videos.num_usable_videos("train") == 1
    with pytest.raises(VisxpError, match="at least 2 training videos .* got 1"):
        check_fits(config(**{"data.batch_size": 4}), three_videos)


def test_no_clips_to_judge_by_are_refused(three_videos, monkeypatch):
    counts = {**three_videos.counts, "test": {"clips": 0, "usable": 0}}
    dataset = dataclasses.replace(three_videos, counts=counts)
    monkeypatch.setattr(PreparedDataset, "num_usable_videos", lambda *_: 2)
    with pytest.raises(VisxpError, match="hold 1 usable clips or more for test, got 0"):
        check_fits(config(**{"data.batch_size": 4}), dataset)
    counts["test"]["usable"] = 1
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(VisxpError, match="hold 2 usable clips or more for"):
        check_fits(config(**{"data.batch_size": 4}), dataset)


def test_network_that_clips_do_not_fit_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(VisxpError, match=r"use a larger input or model\.pool='all'"):
        check_start(config(**{"model.pool": "published"}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_batch_that_8_devices_cannot_share_is_refused(tmp_path):
    line = r"multiple of the 8 devices, got 12; use 8 or 16"
    with pytest.raises(VisxpError, match=line):
        check_start(config(**{"data.batch_size": 12}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "3", '{"port": 80}', "\xff"])
def test_a_file_of_others_by_a_name_of_ours_is_refused_and_kept(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(VisxpError, match=r"holds a config\.json of something else"):
        check_start(config(), tmp_path)
    assert (tmp_path / "config.json").read_text(encoding="latin-1") == content


def test_other_files_in_a_workdir_are_nobodys_business(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    check_start(config(), tmp_path)


def test_looking_for_checkpoints_changes_nothing(tmp_path):
    theirs = tmp_path / CHECKPOINTS / "5.orbax-checkpoint-tmp-1" / "x"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("half a save")
    check_start(config(), tmp_path)
    assert theirs.read_text() == "half a save"
