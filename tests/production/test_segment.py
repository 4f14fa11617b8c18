"""Videos become folders that VisXP's features are made of, as production makes them."""

import json
import math
import os
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from python_speech_features import logfbank

from tests.production.test_checkpoint import AVNET, avnet, tensors
from tests.production.torch_zip import save
from tests.test_shots import COLOURS, shots_at
from tests.videos import damage, rotate, write_video
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.media import MediaError
from visxp_jax.production import extract, segment
from visxp_jax.production.arrays import read_pickled_dict
from visxp_jax.production.folder import SHOTS, TIMES, opened
from visxp_jax.production.keyframes import (
    CANDIDATE_BYTES,
    MOST_CANDIDATES,
    Candidates,
    Segments,
    by_shots,
    most_candidates,
    whole_ms,
)
from visxp_jax.production.write_folder import Task, write_folder
from visxp_jax.train.lock import locked

SILENCE = np.float32(PRESETS["visxp"].silence)


def segmented(path: Path, keyframes: str = "shots", rates_hz=(24_000,)) -> Path:
    """The folder of a video, made here and not in a worker."""
    from data_prep.sources import source_of

    out = path.parent / "folders"
    out.mkdir(exist_ok=True)
    task = Task(source_of(path), out, keyframes, rates_hz, archive=False)
    about = write_folder(task, lambda: None)
    assert isinstance(about, dict), about
    assert os.listdir(out) == [path.stem]
    assert json.loads((task.target / "provenance.json").read_text()) == about
    return task.target


def about(folder: Path) -> dict:
    return json.loads((folder / "provenance.json").read_text())


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder), key=lambda name: int(name.split(".")[0]))


def noise(seconds: float, rate_hz: int) -> np.ndarray:
    """Whole steps of int16, so that nothing is lost on the way to a file and back."""
    steps = np.random.default_rng(0).integers(-9000, 9000, round(seconds * rate_hz))
    return (steps / 32_768).astype(np.float32)


def test_two_shots_give_two_keyframes_from_their_middles(tmp_path):
    path = write_video(
        tmp_path / "news.mkv",
        seconds=5,
        fps=25,
        width=320,
        height=180,
        picture=shots_at(2.0),
    )
    folder = segmented(path)
    assert (folder / SHOTS).read_text() == "[(0, 2000), (2000, 5000)]"
    assert (folder / TIMES).read_text() == "[1000, 3480]"
    assert names(folder / "keyframes") == ["1000.jpg", "3480.jpg"]
    assert len(os.listdir(folder / "spectrograms")) == 2
    for name, colour in zip(names(folder / "keyframes"), COLOURS, strict=False):
        with Image.open(folder / "keyframes" / name) as image:
            assert image.size == (320, 180)
            found = np.asarray(image).mean((0, 1))
        np.testing.assert_allclose(found, colour, atol=8)
    told = about(folder)
    assert told["source"]["name"] == "news.mkv"
    assert (told["video_stream"], told["audio_stream"]) == (0, 1)
    assert (told["keyframes"], told["shots"], told["frames"]) == (2, 2, 125)
    assert told["spectrograms"] == {"24000": {"written": 2, "padded": 0, "missing": 0}}


@pytest.mark.parametrize("rate_hz", [24_000, 48_000])
def test_spectrograms_are_those_of_production(rate_hz, tmp_path):
    wave = noise(4, rate_hz)
    path = write_video(
        tmp_path / "x.mkv",
        seconds=4,
        fps=30,
        sound=wave,
        rate_hz=rate_hz,
        audio_codec="pcm_s16le",
    )
    folder = segmented(path, rates_hz=(rate_hz, 16_000))
    (time_ms,) = json.loads((folder / TIMES).read_text())
    assert abs(time_ms - 2000) < 34
    begin = (time_ms - 500) * rate_hz // 1000
    expected = logfbank(
        np.round(wave[begin : begin + rate_hz] * 32_768).astype(np.int16),
        rate_hz,
        winlen=0.02,
        winstep=0.01,
        nfilt=257,
        nfft=1024,
    )
    expected = np.maximum(expected.T, np.log(np.finfo(np.float64).eps))
    file = folder / "spectrograms" / f"{time_ms}_{rate_hz}.npz"
    found = read_pickled_dict(file)["audio"]
    assert (found.dtype, found.shape) == (np.float32, (1, 257, 99))
    np.testing.assert_allclose(found[0], (expected - 1.93) / 17.89, atol=1e-5)
    with np.load(file, allow_pickle=True) as stored:  # as production reads it
        np.testing.assert_array_equal(stored["arr_0"].item()["audio"], found)
    other = read_pickled_dict(folder / "spectrograms" / f"{time_ms}_16000.npz")["audio"]
    assert other.shape == (1, 257, 99)


def test_windows_over_the_edge_are_filled_with_silence(tmp_path):
    path = write_video(
        tmp_path / "x.mkv",
        seconds=0.8,
        sound=noise(0.8, 24_000),
        audio_codec="pcm_s16le",
    )
    folder = segmented(path)
    assert names(folder / "keyframes") == ["400.jpg"]  # from -100 to 900 ms
    found = read_pickled_dict(folder / "spectrograms" / "400_24000.npz")["audio"][0]
    assert found.shape == (257, 99)
    np.testing.assert_allclose(found[:, :8], SILENCE, rtol=1e-5)
    np.testing.assert_allclose(found[:, 92:], SILENCE, rtol=1e-5)
    assert (found[:, 12:88].mean(axis=0) > SILENCE + 1).all()
    counts = about(folder)["spectrograms"]["24000"]
    assert counts == {"written": 1, "padded": 1, "missing": 0}


def test_without_sound_there_are_no_spectrograms(tmp_path):
    silent = write_video(tmp_path / "silent.mp4", sound=None)
    short = write_video(tmp_path / "short" / "x.mp4", sound=noise(1.4, 24_000))
    for path, missing in ((silent, 3), (short, 2)):
        folder = segmented(path, "seconds")
        written = 3 - missing
        assert len(os.listdir(folder / "spectrograms")) == written
        counts = about(folder)["spectrograms"]["24000"]
        assert counts == {"written": written, "padded": 0, "missing": missing}


def test_seconds_have_the_frame_on_show_in_their_middle(tmp_path):
    """Pictures that stand by themselves, too."""
    mjpeg = {"video_codec": "mjpeg", "pix_fmt": "yuvj420p"}
    for suffix, codec in ((".mp4", {}), (".mkv", mjpeg)):
        folder = segmented(
            write_video(tmp_path / suffix / f"x{suffix}", seconds=3.7, **codec),
            "seconds",
        )
        assert names(folder / "keyframes") == ["500.jpg", "1500.jpg", "2500.jpg"]
        assert (folder / SHOTS).read_text() == "[]"
        with opened(folder) as read:
            assert read.shot_at(2500) == (0, 2500)
        for second in range(3):
            name = f"{1000 * second + 500}.jpg"
            with Image.open(folder / "keyframes" / name) as image:
                assert np.abs(np.asarray(image).mean() - (40 + 35 * second)) < 4


def test_pictures_that_stand_by_themselves_are_all_looked_at(tmp_path):
    mjpeg = {"video_codec": "mjpeg", "pix_fmt": "yuvj420p", "picture": shots_at(1.7)}
    folder = segmented(write_video(tmp_path / "x.mkv", seconds=4, **mjpeg))
    assert (folder / SHOTS).read_text() == "[(0, 1700), (1700, 4000)]"
    assert about(folder)["frames"] == 40


@pytest.mark.parametrize("keyframes", ["shots", "seconds"])
@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(16, 11), (93, 48)),
        (Fraction(1, 2), (32, 48)),
        (Fraction(201, 200), (64, 48)),
        (Fraction(60_000), (64, 48)),  # over the limit of pixels
        (Fraction(2000), (64, 48)),  # and of JPEG
    ],
)
def test_keyframes_are_as_wide_as_they_are_shown(keyframes, aspect, size, tmp_path):
    path = write_video(tmp_path / "a.mkv", seconds=1, aspect=aspect)
    folder = segmented(path, keyframes=keyframes)
    (keyframe,) = (folder / "keyframes").iterdir()
    with Image.open(keyframe) as image:
        assert image.size == size


def test_keyframes_are_upright(tmp_path):
    path = write_video(tmp_path / "x.mp4", width=64, height=48)
    rotate(path)
    folder = segmented(path)
    (name,) = names(folder / "keyframes")
    with Image.open(folder / "keyframes" / name) as image:
        assert image.size == (48, 64)


def test_at_a_variable_rate_the_middle_is_one_of_time(tmp_path):
    times_s = [*np.arange(0, 1, 0.02), 1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 3.4, 3.8]
    path = write_video(tmp_path / "x.mkv", times_s=[round(t, 3) for t in times_s])
    folder = segmented(path)
    assert names(folder / "keyframes") == ["1800.jpg"]
    with Image.open(folder / "keyframes" / "1800.jpg") as image:
        assert abs(np.asarray(image).mean() - 75) < 4


def test_damage_is_told_and_costs_little(tmp_path):
    path = write_video(tmp_path / "x.mkv", seconds=6, picture=shots_at(3.0))
    damage(path, at=0.5)
    folder = segmented(path)
    assert about(folder)["faults"] > 0
    assert about(folder)["keyframes"] >= 1
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(MediaError):
        list(by_shots(path, [24_000], Segments(), lambda: None))


def held(candidates: Candidates) -> int:
    return sum(1 for _ in candidates.unheard(math.inf))  # nobody heard any


@pytest.mark.parametrize("frames", [1, 2, 63, 65, 100, 1000, 20_000])
def test_candidates_stay_few_and_near_the_middle(frames):
    candidates, frame = Candidates(behind_s=0.6), av.VideoFrame(64, 48, "yuv420p")
    most = 0
    for i in range(frames):
        candidates.add(frame, i / 25)
        most = max(most, held(candidates))
    assert most <= MOST_CANDIDATES + 0.6 * 25 + 2
    chosen = candidates.take(frames / 25)
    off = abs(chosen.time_s - frames / 50) * 25
    assert off <= (0.51 if frames < 2 * MOST_CANDIDATES else max(1, frames / 64))
    assert held(candidates) == 0


def test_of_large_frames_fewer_are_held():
    huge = av.VideoFrame(4096, 2160, "yuv420p10le")
    size = sum(plane.buffer_size for plane in huge.planes)
    candidates = Candidates(behind_s=100.0)
    for i in range(300):
        candidates.add(huge, float(i))
    assert held(candidates) * size <= 2 * CANDIDATE_BYTES
    assert most_candidates(av.VideoFrame(8192, 4608, "yuv444p16le")) == 4


def test_frames_after_a_cut_that_is_told_late_are_of_the_next_shot():
    candidates, frame = Candidates(behind_s=0.6), av.VideoFrame(64, 48, "yuv420p")
    for i in range(1000):
        candidates.add(frame, i / 25)
    assert candidates.take(985 / 25).time_s == pytest.approx(19.7, abs=40 / 64)
    for i in range(1000, 1010):
        candidates.add(frame, i / 25)
    assert candidates.take(1010 / 25).time_s == 997 / 25


def test_whole_ms_are_cut_off():
    assert [whole_ms(t) for t in (4.1, 2 / 3, 0.0, 0.9999999)] == [4100, 666, 0, 1000]


@pytest.mark.slow
def test_folders_are_what_features_are_made_of(tmp_path, capsys):
    shown = {"seconds": 3, "fps": 25, "width": 160, "height": 120}
    first = write_video(tmp_path / "a.b.mp4", picture=shots_at(1.2), **shown)
    second = write_video(tmp_path / "silent.mp4", sound=None, **shown)
    save(tmp_path / "checkpoint.tar", {"state_dict": tensors(avnet(False))})
    (tmp_path / "model.yml").write_text(AVNET % "false", encoding="utf-8")
    network = [
        f"--checkpoint={tmp_path / 'checkpoint.tar'}",
        f"--config={tmp_path / 'model.yml'}",
    ]
    out = tmp_path / "out"
    videos = [str(first), str(second), "--workers=1"]
    assert segment.main([*videos, f"--out={out}"]) == 0
    folders = sorted(out.glob("[!.]*"))
    assert [path.name for path in folders] == ["a.b", "silent"]
    command = [*map(str, folders), *network, f"--out={tmp_path / 'features'}"]
    assert extract.main(command) == 0
    assert "1 keyframes, 1 without sound" in capsys.readouterr().out
    rows = np.load(tmp_path / "features" / "a.b.pt")
    np.testing.assert_array_equal(rows[:, :3], [[600, 0, 1200], [2080, 1200, 3000]])
    # The same in archives.
    assert segment.main([*videos, f"--out={tmp_path}", "--archive"]) == 0
    for path in folders:
        archive = tmp_path / f"visxp_prep__{path.name}.tar.gz"
        with opened(path) as one, opened(archive) as other:
            np.testing.assert_array_equal(one.shots, other.shots)
            for kind in ("keyframes", "spectrograms"):
                files, theirs = getattr(one, kind), getattr(other, kind)
                assert files.keys() == theirs.keys()
                for key, file in files.items():
                    assert file.read_bytes() == theirs[key].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--archive"]], ids=["folder", "archive"])
def test_what_is_done_is_left_alone_and_the_rest_made_again(options, tmp_path, capsys):
    videos = tmp_path / "videos"
    write_video(videos / "a.mp4")
    (videos / "bad.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    made = out / ("visxp_prep__a.tar.gz" if options else "a")
    command = [*map(str, videos.iterdir()), f"--out={out}", "--workers=1", *options]
    assert segment.main(command) == 0
    told = capsys.readouterr()
    assert "a.mp4: 1 keyframes" in told.out
    assert "skipped: " in told.err
    assert "bad.mp4: not a readable media file" in told.err
    assert told.err.endswith("\n1 of 2 were skipped.\n")
    assert segment.main([*command, "--strict"]) == 2
    assert capsys.readouterr().err.endswith("error: 1 of 2 were skipped.\n")
    assert sorted(os.listdir(out)) == [".lock-0-of-1", made.name]

    def changed() -> bool:
        before = made.stat().st_ino
        assert segment.main([command[0], *command[2:]]) == 0
        assert sorted(os.listdir(out)) == [".lock-0-of-1", made.name]
        return made.stat().st_ino != before

    command[:2] = sorted(command[:2])
    assert not changed()
    assert "1 done before" in capsys.readouterr().out
    command.append("--keyframes=seconds")
    assert changed()
    assert "3 keyframes" in capsys.readouterr().out
    assert not changed()
    write_video(videos / "a.mp4", seconds=4)
    assert changed()
    assert "4 keyframes" in capsys.readouterr().out
    if options:  # half an archive is none of ours
        made.write_bytes(made.read_bytes()[:50])
    else:
        (made / "provenance.json").unlink()
    assert segment.main([command[0], *command[2:]]) == 2
    told = capsys.readouterr().err
    assert "must be new, or made by this" in told
    assert made.exists()


def test_odd_names_are_just_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "x.mp4", seconds=1)
    odd = [
        b"a b'\"<script>.mp4",
        b"$(touch owned).mp4",
        b"line\nbreak.mp4",
        b"-i.mp4",
        b"bad\xffbyte.mp4",
        b".hidden.mp4",
    ]
    for name in odd:
        shutil.copy("x.mp4", os.fsdecode(name))
    os.unlink("x.mp4")
    videos = [Path(os.fsdecode(name)) for name in odd]
    segment.run(videos, Path("out"), workers=1)
    (Path("out") / ".lock-0-of-1").unlink()
    found = {os.fsencode(name) for name in os.listdir("out")}
    assert found == {name.removesuffix(b".mp4") for name in odd}
    for name in os.listdir("out"):
        with opened(Path("out", name)) as folder:
            assert len(folder.keyframes) == 1


def test_folders_are_searched_for_videos_but_not_that_of_folders(tmp_path, capsys):
    videos, out = tmp_path / "videos", tmp_path / "videos" / "out"
    write_video(videos / "sub" / "a.mp4", seconds=1)
    write_video(videos / ".hidden.mp4", seconds=1)
    command = [str(videos), f"--out={out}", "--keyframes=seconds", "--workers=1"]
    (out / f".{'0' * 24}.partial").mkdir(parents=True)  # by a call that was killed
    assert segment.main(command) == 0
    assert sorted(os.listdir(out)) == [".lock-0-of-1", "a"]
    assert segment.main(command) == 0
    assert capsys.readouterr().out.endswith("1 done before\n")
    (videos / "a.srt").touch()
    assert segment.main(command) == 0
    (videos / "a.mkv").touch()
    assert segment.main(command) == 2
    told = capsys.readouterr().err
    assert f"got {videos / 'a.mkv'} and {videos / 'sub' / 'a.mp4'}; give one" in told


def test_mistakes_are_one_line_and_nothing_is_begun(tmp_path, capsys, monkeypatch):
    video = str(write_video(tmp_path / "a.mp4", seconds=1))
    other = str(tmp_path / "more" / "a.mkv")
    out = f"--out={tmp_path / 'out'}"
    (tmp_path / "file").write_bytes(b"")
    for command, line in (
        ([video, other, out], f"got {video} and {other}; give one"),
        ([str(tmp_path), f"--out={tmp_path}"], "--out must not be a folder of VIDEOS"),
        ([str(tmp_path / "..mp4"), out], "a name that a folder can have, got '.'"),
        ([str(tmp_path / "...mp4"), out], "a name that a folder can have, got '..'"),
        ([f"{'x' * 250}.mp4", "--archive", out], "a name that a folder can have"),
        ([video, out, "--rate", "24000", "22050"], "multiple of 100 from 8000 to"),
        ([video, out, "--workers=0"], "--workers must be at least 1, got 0"),
        ([video, out, "--timeout-s=0"], "--timeout-s must be positive"),
        ([video, f"--out={tmp_path / 'file' / 'x'}"], "cannot write to"),
    ):
        assert segment.main(command) == 2
        told = capsys.readouterr().err
        assert line in told
        assert told.count("\n") == 1
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    assert segment.main([video, out]) == 2
    assert "pip install '.[shots]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert segment.main([video, out, "--keyframes=seconds", "--workers=1"]) == 0


def test_two_runs_do_not_write_into_one_folder(tmp_path, capsys):
    write_video(tmp_path / "a.mp4")
    out = tmp_path / "out"
    with locked(out, name=".lock-0-of-1"):
        command = [str(tmp_path / "a.mp4"), f"--out={out}", "--keyframes=seconds"]
        assert segment.main(command) == 2
    assert "must not be in use" in capsys.readouterr().err
    assert os.listdir(out) == [".lock-0-of-1"]


def test_hosts_share_the_videos_of_a_folder(tmp_path, capsys):
    for i in range(4):
        write_video(tmp_path / "videos" / f"{i}.mp4", seconds=1)
    out = tmp_path / "out"
    (out / f".{'0' * 24}.partial").mkdir(parents=True)  # another host is at it
    command = [str(tmp_path / "videos"), f"--out={out}", "--keyframes=seconds"]
    for i in range(3):
        assert segment.main([*command, "--workers=1", f"--shard={i}/3"]) == 0
    assert capsys.readouterr().out.count(": 1 keyframes\n") == 4
    assert sorted(out.glob("[!.]*")) == [out / str(i) for i in range(4)]
    assert len(list(out.glob(".*.partial"))) == 1


@pytest.mark.parametrize("how", ["shots", "seconds"])
def test_frames_that_jpeg_cannot_hold_cost_only_their_video(how, tmp_path, capsys):
    wide = tmp_path / "wide.mkv"
    with av.open(str(wide), "w") as container:
        stream = container.add_stream("ffv1", rate=2)
        stream.width, stream.height, stream.pix_fmt = 66_000, 16, "gray"
        for _ in range(3):
            frame = av.VideoFrame(66_000, 16, "gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    write_video(tmp_path / "a.mp4", seconds=1)
    out = tmp_path / "out"
    command = [str(wide), str(tmp_path / "a.mp4"), f"--out={out}", "--workers=1"]
    assert segment.main([*command, f"--keyframes={how}"]) == 0
    told = capsys.readouterr().err
    assert "wide.mkv: over the limit of JPEG, 65500: 66000 x 16" in told
    assert "1 of 2 were skipped" in told
    assert (out / "a").is_dir()
