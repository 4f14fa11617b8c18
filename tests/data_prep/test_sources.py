import os
from pathlib import Path

import pytest

from data_prep.sources import find_sources, find_videos, fingerprint, path_of
from visxp_jax.errors import VisxpError
from visxp_jax.media import MediaError, probe


@pytest.fixture
def folder(tmp_path):
    for name in ("bell/small/a.mp4", "bell/b.mp4", "c.mp4", ".hidden/d.mp4", ".e.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "videos"


def found(folder, labels=None, leave_out=None):
    sources = find_sources(folder, labels=labels, leave_out=leave_out or ())
    return {source.name: source.label for source in sources}


def test_subfolders_are_labels_and_hidden_folders_are_listed_as_one(folder):
    assert found(folder) == {
        ".e.mp4": "",
        ".hidden": "",
        "bell/b.mp4": "bell",
        "bell/small/a.mp4": "bell/small",
        "c.mp4": "",
    }


def test_csv_overrules_subfolders(folder):
    labels = folder / "labels.csv"
    labels.write_text("label,file\nding, bell/b.mp4\nloud,bell/small/a.mp4\n,c.mp4\n")
    labels.write_text(labels.read_text().replace(", ", ","))
    assert found(folder, labels) == {
        ".e.mp4": "",
        ".hidden": "",
        "bell/b.mp4": "ding",
        "bell/small/a.mp4": "loud",
        "c.mp4": "",
    }


def test_what_is_no_file_is_listed_for_the_manifest(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "broken.mp4").symlink_to(tmp_path / "gone.mp4")
    os.mkfifo(folder / "pipe.mp4")
    assert {"folder", "broken.mp4", "pipe.mp4"} < set(found(folder))


def test_rows_of_labels_that_name_no_file_are_reported(folder, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\nc.mp4,x\ngone.mp4,x\nbell,x\n")
    assert found(folder, labels)["c.mp4"] == "x"
    note = capsys.readouterr().err
    assert note.startswith("note: 2 of 3 rows of ")
    assert note.endswith(", the first bell\n")


def test_output_within_the_folder_is_left_out_by_any_of_its_names(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert "bell/b.mp4" not in found(link, leave_out={folder / "bell"})
    assert "bell/b.mp4" not in found(folder, leave_out={folder / "bell"})


def test_names_that_are_not_utf8_become_text(folder):
    (folder / os.fsdecode(b"\xff.mp4")).write_bytes(b"x")
    assert "\\xff.mp4" in found(folder)


@pytest.mark.parametrize(
    "name",
    [b"\xff \xc3\xa9.mp4", b"\\xff.mp4", b"plain.mp4", 70 * b"\x83" + b".mp4"],
)
def test_path_of_a_name_is_that_of_the_file(folder, name):
    path = folder / "bell" / os.fsdecode(name)
    path.write_bytes(b"this one")
    sources = find_sources(folder, labels=None, leave_out=())
    (found_name,) = (s.name for s in sources if s.path == path)
    assert path_of(folder, found_name) == path


def test_folders_that_may_not_be_read_are_listed(folder, monkeypatch):
    scandir = os.scandir

    def closed(path):
        if os.fspath(path).endswith("bell"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert set(found(folder)) == {".e.mp4", ".hidden", "bell", "c.mp4"}
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(MediaError, match="a folder that may not be read"):
        probe(folder / "bell")


def test_names_that_are_one_as_text_are_refused(folder):
    (folder / os.fsdecode(b"\xff.mp4")).write_bytes(b"x")
    (folder / "\\xff.mp4").write_bytes(b"x")
    with pytest.raises(VisxpError, match="two that read"):
        found(folder)


def test_fingerprint_tells_changes(folder):
    def now():
        return fingerprint(find_sources(folder, labels=None, leave_out=()))

    before = now()
    (folder / "bell" / ".DS_Store").write_bytes(b"where windows were")
    assert now() == before
    (folder / "c.mp4").write_bytes(b"longer")
    assert now() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,label\nc.mp4,x\n", "columns file and label, got name, label"),
        ("", "columns file and label, got none"),
        ("file,label\nz.mp4,x\n", "got 1 rows .* that name none"),
        ("file,label\n.e.mp4,x\n", "got 1 rows .* that name none"),
        (b"file,label\n\xff,x\n", "csv in UTF-8"),
        ("label,file\nx,c.mp4\ny\n", "a file in every row, got none in line 3"),
        ("file,label\nc.mp4,x\nc.mp4,y\n", "one label, got 'x' and 'y' for 'c.mp4'"),
    ],
)
def test_unusable_labels_are_refused(folder, tmp_path, content, message):
    labels = tmp_path / "labels.csv"
    data = content if isinstance(content, bytes) else content.encode()
    labels.write_bytes(data)
    with pytest.raises(VisxpError, match=message):
        found(folder, labels)


def test_missing_labels_are_refused(folder, tmp_path):
    with pytest.raises(VisxpError, match="No such file"):
        found(folder, tmp_path / "none.csv")


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(VisxpError, match="missing"):
        found(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VisxpError, match="empty"):
        found(tmp_path / "empty")


def test_videos_of_a_command_line_are_files_and_what_is_in_folders(folder, monkeypatch):
    monkeypatch.chdir(folder)
    out = folder / "bell" / "small"
    paths = ["none.mp4", ".e.mp4", ".", "./bell/../c.mp4"]
    names = ["none.mp4", ".e.mp4", "bell/b.mp4", "c.mp4"]
    sources = find_videos([Path(path) for path in paths], out)
    assert [source.path for source in sources] == [folder / name for name in names]
    assert [source.num_bytes for source in sources] == [0, 1, 1, 1]
    (folder / "c.SRT").write_bytes(b"x")
    assert [source.path for source in find_videos([Path(".")], out)] == [
        folder / name for name in ("bell/b.mp4", "c.mp4")
    ]
    assert find_videos([Path("c.SRT")], out)  # that it is named counts
    with pytest.raises(VisxpError, match="--out must not be a folder of VIDEOS itself"):
        find_videos([out], out)
    (out / "a.mp4").rename(out / ".a.mp4")
    with pytest.raises(VisxpError, match="VIDEOS must hold a file that is no text"):
        find_videos([out], folder / "out")
