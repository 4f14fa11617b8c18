"""The rendered demo videos: plan, files, content, resumption, refusals."""

import csv

import av
import numpy as np
import pytest

from data_prep.demo_pictures import LOOKS, render_frames
from data_prep.demo_sounds import VOICES, render_sound
from data_prep.demo_videos import (
    FRAME_HZ,
    KINDS,
    RATE_HZ,
    SIZE_PX,
    demo_video,
    main,
    write_demo_videos,
)
from visxp_jax.errors import VisxpError

VIDEOS = 15  # number 5 has no audio stream, number 14 the sound of another family


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "videos"
    write_demo_videos(folder, videos=VIDEOS, seed=3, workers=1, progress=False)
    return folder


def rows(folder):
    with open(folder / "truth.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def decoded(path):
    """Frames [t, h, w, 3] and wave [n], None without an audio stream."""
    with av.open(str(path)) as container:
        frames = np.stack(
            [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        )
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return frames, None
        assert container.streams.audio[0].rate == RATE_HZ
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return frames, np.concatenate(parts, axis=1)[0]


def draw(seed=0):
    return np.random.default_rng(seed)


def test_kinds_are_four_in_each_of_five_families_with_look_and_voice():
    families = [kind.split("/")[0] for kind in KINDS]
    assert len(set(families)) == 5
    assert {families.count(family) for family in families} == {4}
    assert len(set(KINDS)) == 20
    assert set(LOOKS) == set(VOICES) == set(KINDS)


def test_plan_of_200_has_ten_files_per_kind_and_the_stated_share_of_faults():
    plans = [demo_video(index, seed=0) for index in range(200)]
    kinds = [f"{plan.family}/{plan.kind}" for plan in plans]
    assert {kinds.count(kind) for kind in KINDS} == {10}
    assert len({plan.file for plan in plans}) == 200
    mute = [plan for plan in plans if not plan.sound_kind]
    dubbed = [
        plan
        for plan, kind in zip(plans, kinds, strict=True)
        if plan.sound_kind not in ("", kind)
    ]
    assert 6 <= len(mute) <= 10
    assert 6 <= len(dubbed) <= 10
    assert all(plan.sound_kind.split("/")[0] != plan.family for plan in dubbed)
    assert all(6 <= plan.seconds <= 10 for plan in plans)
    assert len({plan.seconds for plan in plans}) > 20


def test_plan_follows_seed_and_index():
    assert demo_video(4, seed=1) == demo_video(4, seed=1)
    lengths = {demo_video(4, seed=seed).seconds for seed in range(5)}
    assert len(lengths) > 1


def test_folder_holds_the_files_of_truth_and_nothing_else(folder):
    truth = rows(folder)
    assert len(truth) == VIDEOS
    assert set(contents(folder)) == {row["file"] for row in truth} | {"truth.csv"}
    first = truth[0]
    kind = f"{first['family']}/{first['kind']}"
    assert first["file"] == f"{kind}/{kind.replace('/', '-')}-00.mp4"


def test_files_hold_the_streams_that_truth_states(folder):
    for row in rows(folder):
        seconds = float(row["seconds"])
        frames, wave = decoded(folder / row["file"])
        assert frames.shape == (round(seconds * FRAME_HZ), SIZE_PX, SIZE_PX, 3)
        if row["sound_kind"] == "":
            assert wave is None
            continue
        assert wave is not None
        assert abs(len(wave) / RATE_HZ - seconds) < 0.05
        loudness = np.abs(wave[: int(seconds) * RATE_HZ].reshape(-1, RATE_HZ))
        assert (loudness.max(axis=1) > 0.01).all()
        assert loudness.max() <= 1.2  # the lossy codec overshoots a little


def test_faults_of_the_small_set_are_where_the_plan_puts_them(folder):
    truth = rows(folder)
    assert [i for i, row in enumerate(truth) if not row["sound_kind"]] == [5]
    wrong = [
        i
        for i, row in enumerate(truth)
        if row["sound_kind"] not in ("", f"{row['family']}/{row['kind']}")
    ]
    assert wrong == [14]


def test_file_shows_and_plays_what_was_rendered(folder):
    plan = demo_video(0, seed=3)
    kind = f"{plan.family}/{plan.kind}"
    times_s = np.arange(round(plan.seconds * FRAME_HZ)) / FRAME_HZ
    rendered = render_frames(kind, times_s, size_px=SIZE_PX, rng=draw([3, 0, 1]))
    wave = render_sound(kind, plan.seconds, rate_hz=RATE_HZ, rng=draw([3, 0, 2]))
    frames, sound = decoded(folder / plan.file)
    assert np.abs(frames.astype(int) - rendered).mean() < 12
    count = min(len(sound), len(wave))
    assert np.corrcoef(sound[:count], wave[:count])[0, 1] > 0.8


def test_deleted_file_alone_is_rendered_again_with_the_same_bytes(folder):
    before = contents(folder)
    stamps = {name: (folder / name).stat().st_mtime_ns for name in before}
    lost = rows(folder)[2]["file"]
    (folder / lost).unlink()
    write_demo_videos(folder, videos=VIDEOS, seed=3, workers=1, progress=False)
    assert contents(folder) == before
    rewritten = {
        name for name in before if (folder / name).stat().st_mtime_ns != stamps[name]
    }
    assert lost in rewritten
    assert rewritten <= {lost, "truth.csv"}


def test_larger_set_extends_a_smaller_one(tmp_path):
    write_demo_videos(tmp_path, videos=1, seed=3, workers=1, progress=False)
    before = contents(tmp_path)
    write_demo_videos(tmp_path, videos=2, seed=3, workers=1, progress=False)
    after = contents(tmp_path)
    assert len(after) == 3
    video = demo_video(0, seed=3).file
    assert after[video] == before[video]


def test_processes_write_the_same_bytes_as_one(folder, tmp_path):
    write_demo_videos(tmp_path, videos=2, seed=3, workers=2, progress=False)
    reference = contents(folder)
    for index in range(2):
        file = demo_video(index, seed=3).file
        assert (tmp_path / file).read_bytes() == reference[file]


def test_failed_file_leaves_nothing_half_written(tmp_path, monkeypatch):
    def fail(path, frames, wave):
        path.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr("data_prep.demo_videos._encode", fail)
    with pytest.raises(OSError, match="disk full"):
        write_demo_videos(tmp_path, videos=1, seed=3, workers=1, progress=False)
    assert set(contents(tmp_path)) == {"truth.csv"}


def test_folder_of_another_seed_is_refused(folder):
    before = contents(folder)
    with pytest.raises(VisxpError, match="seed 4"):
        write_demo_videos(folder, videos=VIDEOS, seed=4, progress=False)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("option", "value"), [("videos", 0), ("workers", 0), ("seed", -1)]
)
def test_number_out_of_range_is_refused(tmp_path, option, value):
    with pytest.raises(VisxpError, match=f"{option} must be at least"):
        write_demo_videos(tmp_path / "x", **{option: value})
    assert not (tmp_path / "x").exists()


def test_command_line_renders_and_reports_errors(tmp_path, capsys):
    assert main([str(tmp_path), "--videos", "1", "--workers", "1"]) == 0
    assert len(rows(tmp_path)) == 1
    assert main([str(tmp_path), "--videos", "0"]) == 2
    assert "videos must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_form_covers_part_of_the_object_and_stays_inside_it(kind):
    axis = np.linspace(-1.5, 1.5, 121)
    u, v = np.meshgrid(axis, axis)
    inside = LOOKS[kind].form(u, v) < 0
    assert 0.08 < inside[np.hypot(u, v) < 1].mean() < 0.95
    assert not inside[np.maximum(np.abs(u), np.abs(v)) > 1.35].any()


def test_forms_of_different_kinds_differ():
    axis = np.linspace(-1.1, 1.1, 64)
    u, v = np.meshgrid(axis, axis)
    masks = {kind: look.form(u, v) < 0 for kind, look in LOOKS.items()}
    for a in KINDS:
        for b in KINDS:
            if a < b:
                overlap = (masks[a] & masks[b]).sum() / (masks[a] | masks[b]).sum()
                assert overlap < 0.82, (a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_sound_is_full_scale_bounded_and_gets_new_nuisance(kind):
    wave = render_sound(kind, 4.0, rate_hz=RATE_HZ, rng=draw())
    assert wave.shape == (4 * RATE_HZ,)
    assert wave.dtype == np.float32
    assert 0.02 < np.abs(wave).max() <= 1.0
    other = render_sound(kind, 4.0, rate_hz=RATE_HZ, rng=draw(1))
    assert abs(np.corrcoef(wave, other)[0, 1]) < 0.3


def test_picture_changes_at_cuts_and_moves_between_them():
    times_s = np.arange(60) / FRAME_HZ
    frames = render_frames("bell/toll", times_s, size_px=48, rng=draw()).astype(int)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    cuts = steps > 20
    assert 2 <= cuts.sum() <= 6
    assert (steps[~cuts] > 0).all()
