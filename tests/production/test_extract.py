"""Folders of production to features, by a network of production."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.production.folders import folder, packed, spectrogram
from tests.production.test_checkpoint import AVNET, VISUALNET, avnet, tensors
from tests.production.torch_zip import save
from visxp_jax.production import extract
from visxp_jax.production.arrays import pickled_dict
from visxp_jax.production.folder import TIMES, name_of


@pytest.fixture
def network(tmp_path) -> list[str]:
    save(tmp_path / "checkpoint.tar", {"state_dict": tensors(avnet(False))})
    (tmp_path / "model.yml").write_text(AVNET % "false", encoding="utf-8")
    out = tmp_path / "features"
    return [
        f"--checkpoint={tmp_path / 'checkpoint.tar'}",
        f"--config={tmp_path / 'model.yml'}",
        f"--out={out}",
    ]


def test_folders_become_feature_files(network, tmp_path, capsys):
    source = folder(tmp_path / "a", times=range(0, 40_000, 1000))
    (source / "spectrograms" / "3000_24000.npz").unlink()
    archive = packed(source, tmp_path / "b.tar.gz")
    bad = folder(tmp_path / "c")
    (bad / "keyframes" / "500.jpg").write_bytes(b"")
    command = [*map(str, (source, archive, bad)), *network]
    assert extract.main([*command, "--strict"]) == 2
    told = capsys.readouterr()
    assert "40 keyframes, 1 without sound, 39 whose spectrogram is not" in told.out
    assert "500.jpg' must be a JPEG" in told.err
    assert "1 of 3 were skipped" in told.err
    out = tmp_path / "features"
    assert sorted(os.listdir(out)) == ["a.json", "a.pt", "b.json", "b.pt"]
    rows = np.load(out / "a.pt")
    assert rows.dtype == np.float32
    assert rows.shape == (40, 1027)
    np.testing.assert_array_equal(rows[:, 0], range(0, 40_000, 1000))
    np.testing.assert_array_equal(rows[2, 1:3], [0, 2000])
    np.testing.assert_array_equal(rows[3, 1:3], [-1, -1])
    np.testing.assert_array_equal(rows, np.load(out / "b.pt"))
    about = json.loads((out / "a.json").read_text())
    assert about["spectrograms_missing"] == 1
    assert len(about["checkpoint_sha256"]) == 64
    # Again: what is done is left alone; another network is not what made it.
    written = (out / "a.pt").stat().st_mtime_ns
    assert (about["spectrograms_filled"], about["spectrograms_foreign"]) == (0, 39)
    assert extract.main([str(source), *network]) == 0
    assert "done before" in capsys.readouterr().out
    assert (out / "a.pt").stat().st_mtime_ns == written
    config = tmp_path / "model.yml"
    config.write_text(config.read_text().replace("0.0467", "0.05"), encoding="utf-8")
    assert extract.main([str(source), *network]) == 0
    again = np.load(out / "a.pt")
    np.testing.assert_array_equal(again[:, -512:], rows[:, -512:])
    assert np.abs(again - rows).max() > 1e-3


def test_a_folder_that_may_not_be_read_costs_the_others_nothing(
    network, tmp_path, capsys, monkeypatch
):
    closed, good = folder(tmp_path / "closed"), folder(tmp_path / "good")

    def allowed(work):
        def one(path, *args, **more):
            if str(path).startswith(str(closed)):
                raise PermissionError(13, "Permission denied", str(path))
            return work(path, *args, **more)

        return one

    monkeypatch.setattr(os, "stat", allowed(os.stat))
    monkeypatch.setattr(os, "listdir", allowed(os.listdir))
    assert extract.main([str(closed), str(good), *network]) == 0
    told = capsys.readouterr()
    assert "closed: PermissionError" in told.err
    assert "good: 3 keyframes" in told.out


def test_folders_are_found_in_a_folder_of_them(network, tmp_path, capsys):
    every = tmp_path / "every"
    source = folder(every / "a")
    (source / TIMES).write_text("[500, 900, 1500, 12000]")
    packed(source, every / "visxp_prep__b.tar.gz")
    folder(every / ".c.partial")
    (every / "notes.txt").write_text("none")
    (every / "d").mkdir()
    out = every / "features"
    out.mkdir()
    command = [*network[:2], f"--out={out}"]
    assert extract.main([str(every), *command]) == 0
    told = capsys.readouterr()
    assert told.err.count("skipped: ") == 1
    assert "d must have keyframes/*.jpg, but has none" in told.err
    assert told.out.count("3 keyframes, 1 more of its list are not there") == 2
    assert sorted(os.listdir(out)) == ["a.json", "a.pt", "b.json", "b.pt"]
    assert json.loads((out / "b.json").read_text())["keyframes_lost"] == 1
    for shard in ("0/2", "1/2"):
        extract.main([str(every), *command, f"--shard={shard}"])
    told = capsys.readouterr()
    assert told.out.count("done before") == 2
    assert told.err.count("skipped: ") == 1


@pytest.mark.parametrize("part", ["", "keyframes"])
def test_a_link_is_what_it_points_to(part, network, tmp_path, capsys):
    old, new = folder(tmp_path / "old"), folder(tmp_path / "new", (500, 2500))
    source = folder(tmp_path / "a") if part else tmp_path / "a"
    if part:
        shutil.rmtree(source / part)
    link = source / part
    link.symlink_to(old / part)
    assert extract.main([str(source), *network]) == 0
    link.unlink()
    link.symlink_to(new / part)
    assert extract.main([str(source), *network]) == 0
    assert "done before" not in capsys.readouterr().out
    assert len(np.load(tmp_path / "features" / "a.pt")) == 2


@pytest.mark.parametrize("change", ["input", "output", "killed"])
def test_what_is_not_whole_or_not_of_these_inputs_is_made_again(
    change, network, tmp_path, capsys
):
    source, out = folder(tmp_path / "a"), tmp_path / "features"
    assert extract.main([str(source), *network]) == 0
    wanted = np.load(out / "a.pt")
    if change == "input":
        Image.new("RGB", (40, 30), (1, 2, 3)).save(source / "keyframes" / "20000.jpg")
    elif change == "output":
        (out / "a.pt").write_bytes((out / "a.pt").read_bytes()[:-4])
    else:  # between the two files
        (out / "a.json").unlink()
    assert extract.main([str(source), *network]) == 0
    assert "done before" not in capsys.readouterr().out
    found = np.load(out / "a.pt")
    assert len(found) == len(wanted) + (change == "input")
    np.testing.assert_array_equal(found[:3], wanted)


def test_folders_of_the_first_versions_have_their_sound(network, tmp_path, capsys):
    source = folder(tmp_path / "a")
    (source / "spectrograms").rename(source / "spectograms")
    short = spectrogram(frames=66)
    (source / "spectograms" / "500_24000.npz").write_bytes(
        pickled_dict({"audio": short})
    )
    assert extract.main([str(source), *network]) == 0
    assert "3 keyframes, 1 whose sound ends early" in capsys.readouterr().out
    about = json.loads((tmp_path / "features" / "a.json").read_text())
    assert about["spectrograms_filled"] == 1


def test_a_network_of_pictures_needs_no_sound(network, tmp_path):
    state = {
        name.removeprefix("video_model."): x
        for name, x in avnet(True).items()
        if name.startswith("video_model.") and ".fc." not in name
    }
    save(tmp_path / "checkpoint.tar", tensors(state))
    (tmp_path / "model.yml").write_text(VISUALNET, encoding="utf-8")
    assert extract.main([str(folder(tmp_path / "a")), *network]) == 0
    rows = np.load(tmp_path / "features" / "a.pt")
    assert rows.shape == (3, 515)


def test_mistakes_are_one_line(network, tmp_path, capsys):
    source = str(folder(tmp_path / "a"))
    other = str(folder(tmp_path / "more" / "a"))
    (tmp_path / "file").write_bytes(b"")
    wrong = folder(tmp_path / "w")
    for time in (500, 1500, 12000):
        file = wrong / "spectrograms" / f"{time}_24000.npz"
        file.rename(file.with_name(f"{time}_48000.npz"))
    assert extract.main([str(wrong), str(tmp_path / "none"), source, *network]) == 0
    told = capsys.readouterr()
    assert "must be of 24000 Hz for this network, there are some of 48000" in told.err
    assert "none: no such folder or file" in told.err
    assert "a: 3 keyframes" in told.out  # the others are done
    archive = packed(wrong, tmp_path / "visxp_prep__x.tar.gz")
    assert name_of(archive) == "x"
    (wrong / "keyframes" / "500.jpg").write_bytes(b"")
    packed(wrong, archive)
    for command, line in (
        ([source, other, *network], "'a' is there twice"),
        ([source, *network[:2], f"--out={tmp_path / 'file' / 'x'}"], "cannot write to"),
        ([source, "--checkpoint=none", *network[1:]], "none cannot be read: No such"),
        (
            [source, "--checkpoint=/dev/null", *network[1:]],
            "null cannot be read: it is",
        ),
        ([source, network[0], "--config=/dev/null", network[2]], "null cannot be read"),
        ([source, network[0], "--config=none", network[2]], "cannot be read"),
    ):
        assert extract.main(command) == 2
        told = capsys.readouterr().err
        assert line in told
        assert told.count("\n") == 1
