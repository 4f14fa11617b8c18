"""Folders that VisXP's workers exchange: read whole, refused in one line, never run."""

import io
import json
import os
import pickle
import shutil
import signal
import tarfile
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.production.sparse import sparse_member
from tests.production.test_checkpoint import AVNET, VISUALNET, avnet, tensors
from tests.production.torch_zip import save
from visxp_jax.errors import VisxpError
from visxp_jax.production import extract, features
from visxp_jax.production import folder as folder_module
from visxp_jax.production.arrays import pickled_dict, read_pickled_dict
from visxp_jax.production.folder import (
    MAX_METADATA_BYTES,
    SHOTS,
    name_of,
    opened,
    read_keyframe,
    read_shots,
    read_spectrogram,
    unpack,
)
from visxp_jax.production.settings import AudioSettings, Normalisation

AUDIO = AudioSettings(257, 99, 24_000, Normalisation((0.5,), (2.0,)))
HALVES = Normalisation((0.0,), (0.5,))
PLAIN = Normalisation((0.0,) * 3, (1.0,) * 3)


def spectrogram(seed: int = 0, frames: int = 99) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((1, 257, frames)).astype(np.float32)


def folder(path: Path, times=(500, 1500, 12000), shots: str = "[(0, 2000)]") -> Path:
    for part in ("keyframes", "spectrograms", "metadata"):
        (path / part).mkdir(parents=True)
    for i, time in enumerate(times):
        image = Image.new("RGB", (40 + i, 30), (10 * i, 100, 200))
        image.save(path / "keyframes" / f"{time}.jpg")
        file = path / "spectrograms" / f"{time}_24000.npz"
        file.write_bytes(pickled_dict({"audio": spectrogram(i)}))
    (path / SHOTS).write_text(shots, encoding="utf-8")
    return path


def packed(source: Path, archive: Path, root: str = "") -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, arcname=root or ".")
    return archive


@pytest.mark.parametrize("root", ["", "some/where"])
def test_a_folder_and_its_archive_hold_the_same(root, tmp_path):
    source = folder(tmp_path / "a.b")
    archive = packed(source, tmp_path / "x.tar.gz", root)
    for path, name in ((source, "a.b"), (archive, "x")):
        assert name_of(path) == name
        with opened(path) as found:
            assert list(found.keyframes) == [500, 1500, 12000]
            assert set(found.spectrograms) == {(t, 24_000) for t in found.keyframes}
            assert [found.shot_at(t) for t in (0, 2000, 2001)] == [
                (0, 2000),
                (0, 2000),
                (-1, -1),
            ]
            kept = found.keyframes[500]
            assert kept.exists()
    assert not kept.exists()  # it was unpacked for the while


@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        ("[]", (0, 12000)),  # no cut was found
        ("[(0, 100), (400, 600),(450, 900)]\n", (400, 600)),
        ("[[400, 600]]", (400, 600)),
        ("((0, 100), [400.0, 600.],)", (400, 600)),
        (" [ ( 400 , 600 , ) , ( 0 , 500 ) ] ", (400, 600)),  # both hold it
    ],
)
def test_shots_are_read_as_literals(shots, expected, tmp_path):
    with opened(folder(tmp_path / "a", shots=shots)) as found:
        assert found.shot_at(500) == expected


@pytest.mark.parametrize(
    "shots",
    [
        "",
        "[",
        "[(0, 1.5)]",
        "[(0, 1,,)]",
        "[(0 1, 2)]",
        "[(0, 1, 2)]",
        "{}",
        "[0, 1]",
        "[(0, True)]",
        "(" * 10_000,
    ]
    + ["__import__('os').system('touch ran')", "[(0, 9" + "9" * 40 + ")]", "[(0, 1]"],
)
def test_other_shots_are_refused_and_never_run(shots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = folder(tmp_path / "a", shots=shots)
    with pytest.raises(VisxpError, match="must be a list of .start, end."):
        opened(source).__enter__()
    assert not Path("ran").exists()


def test_shots_take_time_by_their_length_alone(tmp_path):
    """By its square, 4 MiB would take a day."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    path, before = tmp_path / "shots.txt", signal.signal(signal.SIGALRM, give_up)
    try:
        signal.alarm(60)
        for begin in ("[(1, 2", "[(1, 2,", "[(1", "[", "[(1, 2)", "[(1, 2),"):
            path.write_text(begin + " " * (MAX_METADATA_BYTES - 20) + "x)]")
            with pytest.raises(VisxpError, match="must be a list of .start, end."):
                read_shots(path, 5)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_names_that_are_no_times_are_refused(tmp_path):
    source = folder(tmp_path / "a")
    for bad in ("keyframes/x.jpg", "keyframes/-1.jpg", "spectrograms/500.npz"):
        (source / bad).write_bytes(b"")
        with pytest.raises(VisxpError, match="named by its time in whole ms"):
            opened(source).__enter__()
        (source / bad).unlink()
    (source / SHOTS).unlink()
    with pytest.raises(VisxpError, match="must be a list of shots: No such file"):
        opened(source).__enter__()
    os.mkfifo(source / SHOTS)
    with pytest.raises(VisxpError, match="it is not a file"):
        opened(source).__enter__()
    with pytest.raises(VisxpError, match=r"must have keyframes/\*.jpg"):
        opened(tmp_path).__enter__()


@pytest.mark.parametrize("version", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_spectrograms_of_any_numpy_are_read(version, protocol, tmp_path):
    wanted = spectrogram()
    path = tmp_path / "1_24000.npz"
    value = np.array({"audio": wanted, "more": np.arange(3)}, object)
    text = pickle.dumps(value, protocol)
    if protocol < 4:  # a name is then written with its own length
        other = {"numpy._core": "numpy.core"}.get(version, version)
        text = text.replace(b"numpy._core", other.encode())
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("arr_0.npy", head.getvalue() + text)
    found = read_pickled_dict(path)
    np.testing.assert_array_equal(found["audio"], wanted)
    np.testing.assert_array_equal(found["more"], np.arange(3))


def test_what_is_written_numpy_reads_as_the_original_does(tmp_path):
    path, wanted = tmp_path / "1_24000.npz", np.asfortranarray(spectrogram()[0])
    path.write_bytes(pickled_dict({"audio": wanted}))
    with np.load(path, allow_pickle=True) as file:
        np.testing.assert_array_equal(file["arr_0"].item()["audio"], wanted)
    np.testing.assert_array_equal(read_pickled_dict(path)["audio"], wanted)
    assert os.listdir(tmp_path) == [path.name]


class Hostile:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_a_hostile_spectrogram_is_refused_and_nothing_of_it_runs(tmp_path):
    path, trace = tmp_path / "1_24000.npz", tmp_path / "ran"
    for value in ({"audio": Hostile(trace)}, {"audio": np.array([Hostile(trace)])}):
        np.savez(path, value)
        with pytest.raises(VisxpError, match="may not call '(posix|nt).system'"):
            read_pickled_dict(path)
        assert not trace.exists()
        with np.load(path, allow_pickle=True) as file:  # it is what it says
            file["arr_0"]
        assert trace.exists()
        trace.unlink()


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"garbage"),
        lambda path: np.savez(path, np.zeros(3)),
        lambda path: np.savez(path, [1, 2, 3]),
        lambda path: np.savez(path, {"audio": "text"}),
        lambda path: np.savez(path, {"audio": np.array(["text"])}),
        lambda path: np.savez(path, {1: np.zeros(3)}),
        lambda path: np.savez(path, a={"audio": 1}, b=1),
        lambda path: np.savez(path, {"audio": np.array([{}, {}])}),
    ],
)
def test_files_that_are_no_spectrograms_are_refused_in_one_line(write, tmp_path):
    path = tmp_path / "1_24000.npz"
    write(path)
    with pytest.raises(VisxpError, match="must be a spectrogram as VisXP") as refused:
        read_pickled_dict(path)
    assert "\n" not in str(refused.value)


def test_a_list_of_parts_is_not_read_to_find_it_too_long(monkeypatch, tmp_path):
    path, made = tmp_path / "1_24000.npz", []
    with zipfile.ZipFile(path, "w") as file:
        for number in range(100):
            file.writestr(f"{number}.npy", b"")
    monkeypatch.setattr(zipfile, "ZipInfo", made.append)
    with pytest.raises(VisxpError, match="its list of parts is over 1,024 bytes"):
        read_pickled_dict(path)
    assert not made


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_zips_that_lie_about_their_size_are_refused(kind, tmp_path):
    path = tmp_path / "1_24000.npz"
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("arr_0.npy", bytes(2**20))
    data = path.read_bytes()
    told = (2**20).to_bytes(4, "little")
    assert data.count(told) == 2
    path.write_bytes(data.replace(told, (1000).to_bytes(4, "little")))
    with pytest.raises(VisxpError, match="arr_0.npy' is (compressed|damaged)"):
        read_pickled_dict(path)


def test_every_flipped_byte_is_one_line(tmp_path):
    path, told = tmp_path / "1_24000.npz", []
    for write in (np.savez, np.savez_compressed):
        write(path, {"audio": np.arange(6.0).reshape(1, 2, 3)})
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
            try:
                read_pickled_dict(path)
            except VisxpError as error:
                told.append(str(error))
    assert len(told) > 100
    assert not any("\n" in line for line in told)


def test_keyframes_that_cost_too_much_are_refused(tmp_path):
    path = tmp_path / "1.jpg"
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), "u1")
    )
    image.save(path, progressive=True)
    data = path.read_bytes()
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[:-2] + 100 * data[last:-2] + data[-2:])
    with pytest.raises(VisxpError, match="over the limit of 64 scans"):
        read_keyframe(path, (8, 8), PLAIN)
    size = data.index(b"\xff\xc2") + 5
    for side in (10_000, 60_000):
        told = 2 * side.to_bytes(2, "big")
        path.write_bytes(data[:size] + told + data[size + 4 :])
        with pytest.raises(VisxpError, match="over the limit of 37,748,736 pixels"):
            read_keyframe(path, (8, 8), PLAIN)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(VisxpError, match="it is not a file"):
        read_keyframe(path, (8, 8), PLAIN)


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


def test_bombs_are_refused(monkeypatch, tmp_path):
    path = tmp_path / "1_24000.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("arr_0.npy", bytes(65 * 2**20))
    with pytest.raises(VisxpError, match="is over 67,108,864 bytes"):
        read_pickled_dict(path)
    archive = packed(folder(tmp_path / "a"), tmp_path / "a.tar.gz")
    for name, value in (("MAX_MEMBERS", 3), ("MAX_ARCHIVE_BYTES", 5000)):
        with monkeypatch.context() as patch:
            patch.setattr(f"visxp_jax.production.folder.{name}", value)
            with pytest.raises(VisxpError, match="over the limit"):
                opened(archive).__enter__()


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


def test_keyframes_are_resized_whole_and_normalised(tmp_path):
    path = tmp_path / "1.jpg"
    half = np.zeros((64, 128, 3), np.uint8)
    half[:, 64:] = 200
    Image.fromarray(half).save(path, quality=100)
    found = read_keyframe(path, (16, 16), Normalisation((0.5,) * 3, (0.25,) * 3))
    assert found.shape == (16, 16, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :7], -2.0, atol=0.02)
    np.testing.assert_allclose(found[:, 9:], (200 / 255 - 0.5) / 0.25, atol=0.02)
    Image.new("L", (20, 20), 51).save(path)  # grey
    np.testing.assert_allclose(read_keyframe(path, (8, 8), PLAIN), 0.2, atol=0.01)
    for bad in (b"", b"\xff\xd8\xff garbage"):
        path.write_bytes(bad)
        with pytest.raises(VisxpError, match="must be a JPEG"):
            read_keyframe(path, (8, 8), PLAIN)
    Image.new("RGB", (20, 20)).save(path, "PNG")
    with pytest.raises(VisxpError, match="must be a JPEG"):
        read_keyframe(path, (8, 8), PLAIN)


def test_short_spectrograms_are_filled_up_and_others_refused(tmp_path):
    path, short = tmp_path / "1_24000.npz", spectrogram(frames=66)
    path.write_bytes(pickled_dict({"audio": short}))
    none = np.zeros(257, bool)
    found, filled, foreign = read_spectrogram(path, AUDIO, silence=-2.5, empty=none)
    assert (filled, foreign) == (True, False)
    np.testing.assert_allclose(found[:, :66], (short[0] - 0.5) / 2, rtol=1e-6)
    np.testing.assert_array_equal(found[:, 66:], -1.5)
    for bad, line in (
        (spectrogram(frames=101), r"must be of shape \(1, 257, 99\), got"),
        (spectrogram()[:, :96], "another rate, window or number of bands"),
        (spectrogram()[0], "must be of shape"),
        (spectrogram() * np.inf, "finite"),
        (np.full((1, 257, 99), 1e300), "finite"),  # float64; float32 has no such
        (np.zeros((1, 257, 99), int), "floats"),
    ):
        path.write_bytes(pickled_dict({"audio": bad}))
        with pytest.raises(VisxpError, match=line):
            read_spectrogram(path, AUDIO, silence=-2.5, empty=none)


def test_spectrograms_that_overflow_when_normalised_are_refused(tmp_path):
    path, audio = tmp_path / "1_24000.npz", AudioSettings(257, 99, 24_000, HALVES)
    path.write_bytes(pickled_dict({"audio": np.full((1, 257, 99), -3e38, "f4")}))
    with pytest.raises(VisxpError, match="must be finite as float32"):
        read_spectrogram(path, audio, silence=-2.5, empty=np.zeros(257, bool))


def test_spectrograms_of_another_scale_are_told_from_visxps(tmp_path):
    """Whatever the sound was: bands that nothing reaches are at silence."""
    path, rng = tmp_path / "1_24000.npz", np.random.default_rng(0)
    empty = features.empty_bands(24_000, 257)
    assert (empty.sum(), features.empty_bands(48_000, 257).sum()) == (38, 56)
    recipe = features.RECIPE

    def is_foreign(values: np.ndarray) -> bool:
        path.write_bytes(pickled_dict({"audio": values}))
        return read_spectrogram(path, AUDIO, recipe.silence, empty).foreign

    for level in (0.0, 1e-4, 0.01, 1.0):  # silence, a bit, quiet, loud
        wave = (level * rng.uniform(-1, 1, 24_000)).round(4).astype(np.float32)
        own = recipe.log_mel(wave)[None]
        for values in (own, own.astype(np.float16), own[:, :, :66]):
            assert not is_foreign(values)
        span = max(np.ptp(own), 1e-3)
        for values in (
            (own - own.min()) / span,
            own * recipe.std + recipe.mean,
            (own - 0.0467) / 0.9170,
            own * 0,
        ):
            assert is_foreign(values)


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
