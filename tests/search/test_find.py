"""The whole way: videos, features, an index, and what is found in it."""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import contrastive
from tests.search.collection import make_collection
from tests.videos import write_video
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.config import from_dict
from visxp_jax.errors import VisxpError
from visxp_jax.feature_files import ClipRow, Writer
from visxp_jax.media import printable
from visxp_jax.search import __main__ as search
from visxp_jax.search.reading import read_picture, read_sound


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model, five videos, one of them without sound, and an index of them."""
    path = tmp_path_factory.mktemp("search")
    make_collection(path, [f"{i}.mp4" for i in range(5)])
    return path


def found(made: Path, capsys, *args: str) -> list[dict]:
    capsys.readouterr()
    command = ["find", str(made / "index"), "--json", *args]
    assert search.main(command) == 0
    return json.loads(capsys.readouterr().out)


def test_a_second_of_the_index_finds_others(made, capsys):
    like = str(made / "2.mp4")
    hits = found(made, capsys, f"--like={like}", "--at=1.5", "-k", "20")
    assert len(hits) == 14  # all but itself
    once = found(made, capsys, f"--like={like}", "--at=1.5", "--once")
    first = {hit["path"]: hit for hit in reversed(hits)}
    assert once == sorted(first.values(), key=lambda hit: -hit["score"])
    assert (like, 1.0) not in {(hit["path"], hit["start_s"]) for hit in hits}
    assert found(made, capsys, "--like=2.mp4", "--at=1.5", "-k", "20") == hits
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    hits = found(made, capsys, f"--like={like}", "--by=sound", "-k", "20")
    assert not [hit for hit in hits if hit["path"].endswith("4.mp4")]


def test_a_picture_of_a_video_finds_it(made, capsys, tmp_path):
    frame = np.full((48, 64, 3), (100, 175, 0), np.uint8)
    Image.fromarray(frame).save(tmp_path / "picture.png")
    how = (f"--like={tmp_path / 'picture.png'}", f"--workdir={made / 'run'}")
    first, *_ = found(made, capsys, *how)
    assert first["path"] == str(made / "2.mp4")
    assert first["collection"] == "all"


@pytest.mark.parametrize("ending", ["mp4", "wav"])
def test_a_sound_from_elsewhere_finds_its_like(ending, made, capsys, tmp_path):
    path = tmp_path / f"sound.{ending}"
    if ending == "mp4":
        write_video(path)
    else:
        write_wav(path, made / "0.mp4")
    how = (f"--like={path}", "--at=2", "--by=sound", f"--workdir={made / 'run'}")
    first, *_ = found(made, capsys, *how)
    assert first["start_s"] == 2
    assert first["score"] > 0.99


def write_wav(path: Path, video: Path) -> None:
    """The sound of a video."""
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        for second in range(3):
            samples = read_sound(video, second, PRESETS["mel"])
            file.writeframes((samples * 32_767).astype("<i2").tobytes())


def test_sounds_for_a_picture_are_found_by_correspondence(made, capsys):
    like = f"--like={made / '1.mp4'}"
    hits = found(made, capsys, like, "--find=sound", f"--workdir={made / 'run'}")
    assert hits
    assert all(0 <= hit["score"] <= 1 for hit in hits)
    assert not [hit for hit in hits if hit["path"].endswith("4.mp4")]
    index, how = str(made / "index"), ("--find=sound", f"--workdir={made / 'run'}")
    assert search.main(["find", index, like, *how, "-k", "1"]) == 0
    told = capsys.readouterr()
    assert (
        told.err == "scores: probability that the two belong together, to the model\n"
    )
    assert search.main(["find", index, like]) == 0
    assert capsys.readouterr().err == ""


def test_with_a_common_space_they_are_found_by_it(tmp_path, capsys):
    config = from_dict(contrastive.get_config("debug"))
    make_collection(tmp_path, ["a.mp4", "b.mp4", "silent.mp4"], config)
    how = ("--at=1", "--by=sound", "--find=sight", f"--workdir={tmp_path / 'run'}")
    capsys.readouterr()
    command = ["find", str(tmp_path / "index"), "--like=a.mp4", *how, "--json"]
    assert search.main(command) == 0
    told = capsys.readouterr()
    assert told.err.startswith("scores: cosine in the space that sight and sound have")
    scores = [hit["score"] for hit in json.loads(told.out)]
    assert len(scores) == 9
    assert scores == sorted(scores, reverse=True)
    assert all(-1.0001 <= score <= 1.0001 for score in scores)


def test_the_answer_for_people_has_time_and_file(made, capsys):
    capsys.readouterr()
    index, like = str(made / "index"), str(made / "0.mp4")
    assert search.main(["find", index, f"--like={like}", "-k", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    score, start, dash, end, path, collection = line.split()
    assert float(score) <= 1.0001
    assert start in ("0:00.0", "0:01.0", "0:02.0")
    assert end in ("0:01.0", "0:02.0", "0:03.0")
    assert (dash, collection) == ("-", "all")
    assert path.endswith(".mp4")
    assert search.main(["show", index]) == 0
    assert "all: 5 files, 15 clips" in capsys.readouterr().out


def test_a_file_of_two_collections_is_that_of_the_one_asked_for(made, capsys, tmp_path):
    index, features = str(tmp_path / "index"), str(made / "features")
    for name in ("a", "b"):
        assert search.main(["add", index, features, f"--collection={name}"]) == 0
    capsys.readouterr()
    like = (f"--like={made / '2.mp4'}", "--at=1", "-k", "20")
    command = ["find", index, *like, "--collection=b", "--json"]
    assert search.main(command) == 0
    hits = json.loads(capsys.readouterr().out)
    assert {hit["collection"] for hit in hits} == {"b"}
    assert len(hits) == 14  # all but itself
    assert search.main(["find", index, *like[:2], "-k", "40", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 28  # nor its copy


def test_files_are_taken_out_by_name_and_stay_out(made, tmp_path, capsys):
    index, features = str(tmp_path / "index"), str(made / "features")

    def told(*args: str) -> str:
        capsys.readouterr()
        assert search.main([args[0], index, *args[1:]]) == 0
        return capsys.readouterr().out

    told("add", features)
    assert told("remove", str(made / "3.mp4")) == "3 clips removed\n"
    assert told("compact") == ""
    left = "(no collection): 4 files, 12 clips; 1 files were removed and stay out\n"
    assert told("show").startswith(left)
    nightly = "0 clips of 0 files added; 4 were there"
    assert told("add", features) == f"{nightly}; 1 left out, removed before\n"
    again = "3 clips of 1 files added; 4 were there\n"
    assert told("add", features, "--again") == again
    assert told("show").startswith("(no collection): 5 files, 15 clips\nweights: ")


def test_one_damaged_feature_file_does_not_keep_out_the_others(made, tmp_path, capsys):
    features = tmp_path / "features"
    shutil.copytree(made / "features", features)
    (features / "zz\n.parquet").write_bytes(b"garbage")
    add = ["add", str(tmp_path / "index"), str(features)]
    for told in ("15 clips of 5 files added", "0 clips of 0 files added; 5 were there"):
        capsys.readouterr()
        assert search.main(add) == 0
        out, err = capsys.readouterr()
        assert out == f"{told}\n"
        line, error = err.splitlines()
        name = printable(features / "zz\n.parquet")
        assert line.startswith(f"skipped: {name}: must be a .parquet file from")
        assert error == "1 of 6 were skipped."
    assert search.main([*add, "--strict"]) == 2


def make_index(path: Path, files: dict[str, str]) -> str:
    """Of a second of each of these files, by their collections."""
    for i, (name, collection) in enumerate(files.items()):
        writer = Writer(path, f"{i}")
        row = ClipRow(name, 0.0, 1.0, 0.5, True, False, False)
        writer.add(row, {"video": np.ones(2), "audio": np.ones(2)})
        writer.finish({"model_sha256": "f" * 64})
        add = ["add", str(path / "both"), str(path / f"{i}.parquet")]
        assert search.main([*add, f"--collection={collection}"]) == 0
    return str(path / "both")


def test_the_end_of_a_path_is_looked_for_in_the_collections_asked_for(tmp_path, capsys):
    files = {"a/0.mp4": "news", "b/0.mp4": "sport", "b/1.mp4": "sport", "0.mp4": "old"}
    find = ["find", make_index(tmp_path, files), "--json"]
    for like, where, right in (
        ("0.mp4", "sport", ["b/1.mp4"]),  # all but itself
        ("1.mp4", "sport", ["b/0.mp4"]),
        ("1.mp4", "news", ["a/0.mp4"]),  # of another collection
    ):
        capsys.readouterr()
        assert search.main([*find, f"--like={like}", f"--collection={where}"]) == 0
        hits = json.loads(capsys.readouterr().out)
        assert [hit["path"] for hit in hits] == right


def test_mistakes_are_one_line(made, tmp_path, capsys):
    index = str(made / "index")
    other = tmp_path / "other.mp4"
    write_video(other, seconds=2)
    (tmp_path / "bad.jpg").write_bytes(b"garbage")
    run = f"--workdir={made / 'run'}"
    both = make_index(tmp_path, {"a/0.mp4": "news", "b/0.mp4": "sport"})
    capsys.readouterr()
    for args, line in (
        (["find", index, f"--like={other}"], "needs the model: give --workdir"),
        (["find", index, f"--like={other}", "--at=7", run], "no whole second at 7 s"),
        (["find", index, f"--like={tmp_path / 'bad.jpg'}", run], "readable picture"),
        (["find", index, f"--like={tmp_path / 'no.wav'}"], "there is no such file"),
        (["find", both, "--like=0.mp4"], "2 are called so: "),
        (["find", both, "--like=news"], "there is no such file"),
        (["add", index, str(tmp_path / "none")], "it is missing"),
        (
            ["find", index, f"--like={made / '4.mp4'}", "--by=sound"],
            "no sound to search by",
        ),
        (["find", index, f"--like={made / '0.mp4'}", "-k", "0"], "-k must be"),
        (["find", index, f"--like={made / '0.mp4'}", "--at=nan"], "--at must be 0 or"),
        (
            ["find", index, f"--like={other}", "--collection=al"],
            "got 'al'; there is 'al",
        ),
        (["find", index, f"--like={made / '0.mp4'}", "--at=500"], "clip in the index"),
        (["find", str(tmp_path / "no"), f"--like={other}"], "must be an index, got"),
        (["remove", str(tmp_path / "no"), "a.mp4"], "must be an index, got none"),
        (["show", str(tmp_path / "no")], "must be an index, got none there"),
        (["remove", index, "none.mp4"], "has none called 'none.mp4'; nothing was"),
    ):
        assert search.main(args) == 2, args
        told = capsys.readouterr().err
        assert line in told
        assert told.count("\n") == 1
    assert not (tmp_path / "no").exists()


def test_pictures_are_turned_upright(tmp_path):
    path = tmp_path / "turned.jpg"
    image = Image.fromarray(
        np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 4, (1, 64, 3))
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=100)
    found = read_picture(path, 16).astype(int)
    assert (np.diff(found.mean(axis=(0, 2))) < 0).all()


def test_what_is_no_picture_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, line in (("none.jpg", "no such file"), ("pipe.jpg", "not a file")):
        with pytest.raises(VisxpError, match=line):
            read_picture(tmp_path / name, 16)
    for side in (10_000, 16_000):  # Pillow warns of the first, refuses the second
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", b"")]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(x))
            + name
            + x
            + struct.pack(">I", zlib.crc32(name + x))
            for name, x in chunks
        )
        (tmp_path / "large.png").write_bytes(data)
        with pytest.raises(VisxpError, match="limit of 89478485 pixels; use a"):
            read_picture(tmp_path / "large.png", 16)
