"""Folders that VisXP's workers exchange: read whole, refused in one line, never run."""

import io
import os
import pickle
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.production.folders import AUDIO, HALVES, PLAIN, folder, packed, spectrogram
from visxp_jax.errors import VisxpError
from visxp_jax.production import features
from visxp_jax.production.arrays import pickled_dict, read_pickled_dict
from visxp_jax.production.folder import (
    MAX_METADATA_BYTES,
    SHOTS,
    TIMES,
    name_of,
    opened,
    read_keyframe,
    read_shots,
    read_spectrogram,
)
from visxp_jax.production.settings import AudioSettings, Normalisation


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
        "[(0, 1)(2, 3)]",
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


def test_keyframes_that_are_lost_are_told_by_the_list_of_them(tmp_path):
    source = folder(tmp_path / "a")
    with opened(source) as found:
        assert found.lost == 0  # there is no list
    (source / TIMES).write_text("[500, 900, 1500.0, 12000, 13000]")
    for path in (source, packed(source, tmp_path / "b.tar.gz")):
        with opened(path) as found:
            assert found.lost == 2
    for bad in ("[500 900]", "[1234567890123]", "[(500, 900)]", "[1.5]", "", "1, 2"):
        (source / TIMES).write_text(bad)
        with opened(source) as found:  # as production does, which needs no list
            assert found.lost is None


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
    with pytest.raises(VisxpError, match="in whole ms: No such file"):
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
