"""Archives of folders: only plain files of their own come out of them."""

import tarfile
import weakref

import pytest

from tests.production.folders import folder, packed
from tests.production.sparse import sparse_member
from visxp_jax.errors import VisxpError
from visxp_jax.production import folder as folder_module
from visxp_jax.production.folder import unpack


@pytest.mark.parametrize(
    "header",
    [
        ("path", "keyframes/a\0b.jpg"),
        ("comment", "x" * 20_000),
    ],
)
def test_hostile_headers_of_archives_are_refused(header, tmp_path):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("keyframes/1.jpg")
        info.pax_headers = dict([header])
        tar.addfile(info)
    with pytest.raises(VisxpError, match="damaged"):
        unpack(archive, tmp_path)


def test_members_of_archives_are_forgotten_as_they_go(monkeypatch, tmp_path):
    archive, seen, alive = tmp_path / "a.tar", [], []
    with tarfile.open(archive, "w") as tar:
        for number in range(100):
            tar.addfile(tarfile.TarInfo(f"notes/{number}"))

    def place(member: tarfile.TarInfo) -> None:
        seen.append(weakref.ref(member))
        alive.append(sum(each() is not None for each in seen))

    monkeypatch.setattr(folder_module, "_place", place)
    unpack(archive, tmp_path)
    assert len(alive) == 100
    assert max(alive) < 5


def test_headers_for_all_files_are_refused(tmp_path):
    archive, pax = tmp_path / "a.tar", {"comment": "x"}
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT, pax_headers=pax) as tar:
        tar.addfile(tarfile.TarInfo("keyframes/1.jpg"))
    with pytest.raises(VisxpError, match="for all of its files .global PAX."):
        unpack(archive, tmp_path)


def test_an_archive_writes_nowhere_else(tmp_path):
    archive, into = tmp_path / "a.tar", tmp_path / "into"
    into.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    with tarfile.open(archive, "w") as tar:
        for name, kind in (
            ("../../keyframes/1.jpg", tarfile.REGTYPE),
            ("/keyframes/2.jpg", tarfile.REGTYPE),
            ("keyframes/..", tarfile.REGTYPE),
            ("keyframes", tarfile.SYMTYPE),
            ("other/6.jpg", tarfile.REGTYPE),
            ("metadata/other.txt", tarfile.REGTYPE),
            ("other/3.jpg", tarfile.LNKTYPE),
            ("keyframes/7.sh", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "../secret.jpg", 0
            tar.addfile(info)
    unpack(archive, into)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    assert found == [
        *("a.tar", "into", "into/keyframes"),
        *("into/keyframes/1.jpg", "into/keyframes/2.jpg", "secret.jpg"),
    ]
    cut = packed(folder(tmp_path / "a"), tmp_path / "cut.tar.gz")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    for damaged in (cut, tmp_path / "secret.jpg", tmp_path / "none"):
        with pytest.raises(VisxpError, match="must be a folder of keyframes, or"):
            unpack(damaged, into)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_no_row_goes_missing_since_its_keyframe_was_a_link(kind, tmp_path):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("x/keyframes/3.jpg")
        info.type, info.linkname = kind, "../secret.jpg"
        tar.addfile(info)
    with pytest.raises(VisxpError, match="'keyframes/3.jpg' in it must be a plain"):
        unpack(archive, tmp_path)


def test_an_archive_of_several_folders_is_not_taken_for_one(tmp_path):
    for name in ("a", "b"):
        folder(tmp_path / "all" / name, times=[500 if name == "a" else 600])
    archive, into = packed(tmp_path / "all", tmp_path / "x.tar.gz"), tmp_path / "into"
    into.mkdir()
    with pytest.raises(VisxpError, match=r"\.txt' is in it from several folders"):
        unpack(archive, into)


@pytest.mark.parametrize("kind", ["sparse", "sparse, PAX", "sparse, list", "size"])
def test_files_that_are_large_only_when_unpacked_are_not(kind, tmp_path):
    """A hole of 4 GiB takes 512 bytes of an archive, and so does a header that lies.

    A list of holes may be as long as the archive, of a file of whatever name.
    """
    info = tarfile.TarInfo("keyframes/1.jpg")
    if kind == "sparse":
        member = sparse_member("keyframes/1.jpg", 2**32)
    elif kind == "sparse, PAX":
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**32)}
        member = info.tobuf(tarfile.PAX_FORMAT)
    elif kind == "sparse, list":
        info.name = "notes/1.txt"
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        member = info.tobuf(tarfile.PAX_FORMAT) + b"9" * 12 + b"\n1" * 250
    else:
        info.size = 2**32
        member = info.tobuf()
    archive, into = tmp_path / "a.tar", tmp_path / "into"
    archive.write_bytes(member + bytes(2**20))
    into.mkdir()
    why = "is sparse" if kind != "size" else "over the limit of 33,554,432"
    with pytest.raises(VisxpError, match=why):
        unpack(archive, into)
    assert not list(into.rglob("*.jpg"))
