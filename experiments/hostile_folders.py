"""VisXP folders, archives, checkpoints and configurations that do harm.

For `experiments.hostile`; written by what the tests write theirs with.
"""

import codecs
import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.production.sparse import sparse_member
from tests.production.test_checkpoint import AVNET, avnet, tensors
from tests.production.torch_zip import save
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.production.arrays import pickled_dict

VISXP = PRESETS["visxp"]
Write = Callable[[Path], object]  # of a file
NPZ = "spectrograms/500_24000.npz"
JPEG = "keyframes/500.jpg"
SHOTS = "metadata/shot_boundaries_timestamps_ms.txt"
DEEP = 1_000_000
TRACE = "owned"  # what payloads name their files


class Payload:
    """Runs a command of the shell where its pickle is loaded."""

    def __init__(self, command: str) -> None:
        """Takes the command."""
        self._command = command

    def __reduce__(self) -> Any:
        """What pickle stores."""
        return os.system, (self._command,)


def spectrogram() -> np.ndarray:
    """As VisXP makes it, [1, 257, 99]."""
    time_s = np.arange(VISXP.rate_hz) / VISXP.rate_hz
    rng = np.random.default_rng(0)
    wave = 0.3 * np.sin(2 * np.pi * 440 * time_s) + 0.01 * rng.standard_normal(24_000)
    return VISXP.log_mel(wave.astype(np.float32))[None]


def sound_folder(path: Path) -> Path:
    """A keyframe, its spectrogram, a shot: nothing wrong with it."""
    for part in ("keyframes", "spectrograms", "metadata"):
        (path / part).mkdir(parents=True)
    Image.new("RGB", (64, 48), (10, 100, 200)).save(path / JPEG)
    (path / NPZ).write_bytes(pickled_dict({"audio": spectrogram()}))
    (path / SHOTS).write_text("[(0, 2000)]", encoding="utf-8")
    return path


def audio(values: Any) -> Write:
    """A spectrogram of other values."""
    return content(pickled_dict({"audio": values}))


def content(data: bytes) -> Write:
    """A file of these bytes."""
    return lambda path: path.write_bytes(data)


def scaled() -> np.ndarray:
    """From 0 to 1, as other tools have it."""
    x = spectrogram()
    return (x - x.min()) / (x.max() - x.min())


def npz_of(pickled: bytes) -> Write:
    """A pickle where numpy has that of an array of objects."""
    head = io.BytesIO()
    about = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(head, about)

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("arr_0.npy", head.getvalue() + pickled)

    return write


def deeply_nested() -> bytes:
    """A tuple in a tuple in a tuple."""
    return b"\x80\x02)" + DEEP * b"\x85" + b"."


def reduce_bomb() -> bytes:
    """A million characters, encoded 10,000 times over."""
    text = pickle.BINUNICODE + (10**6).to_bytes(4, "little") + 10**6 * b"x"
    name = b"c_codecs\nencode\n"
    once = b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R"
    body = name + b"q\x00" + text + b"q\x01" + b"]" + b"(" + 10_000 * once + b"e"
    assert pickle.BINUNICODE == b"X"
    assert codecs.encode("x", "latin1") == b"x"  # what it would call
    return b"\x80\x02" + body + b"."


def zip_bomb(path: Path) -> None:
    """200 MB of zeros in 200 KB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("arr_0.npy", bytes(200 * 10**6))


def lying_zip(path: Path) -> None:
    """It says 1,000 bytes and has a million."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("arr_0.npy", bytes(10**6))
    data, told = path.read_bytes(), (10**6).to_bytes(4, "little")
    assert data.count(told) == 2
    path.write_bytes(data.replace(told, (1000).to_bytes(4, "little")))


def huge_jpeg(side: int) -> Write:
    """A picture of side x side pixels by its header."""

    def write(path: Path) -> None:
        Image.new("RGB", (64, 48)).save(path)
        data = path.read_bytes()
        size = data.index(b"\xff\xc0") + 5
        path.write_bytes(data[:size] + 2 * side.to_bytes(2, "big") + data[size + 4 :])

    return write


def _spectrograms(command: str) -> Iterator[tuple[str, Write]]:
    x = spectrogram()
    yield "66 frames, from a window over the edge", audio(x[:, :, :66])
    yield "96 frames, of another window", audio(x[:, :, :96])
    yield "101 frames", audio(np.pad(x, [(0, 0), (0, 0), (0, 2)]))
    yield "128 bands", audio(x[:, :128])
    yield "no first axis", audio(x[0])
    yield "int16", audio((100 * x).astype(np.int16))
    yield "under another name", content(pickled_dict({"x": x}))
    yield "floats from 0 to 1", audio(scaled())
    yield "not normalised", audio(x * VISXP.std + VISXP.mean)
    yield "zeros", audio(0 * x)
    yield "NaN in it", audio(np.where(x > 0, np.nan, x))
    yield "array without a dict", lambda path: np.savez(path, x)
    yield "empty", content(b"")
    hostile = pickle.dumps(Payload(command))
    yield "pickle of os.system, no zip", content(hostile)
    yield "npz with os.system in it", audio(Payload(command))
    yield "npz, calls that make 10 GB", npz_of(reduce_bomb())
    yield f"npz, {DEEP:,} tuples in each other", npz_of(deeply_nested())
    yield "zip bomb", zip_bomb
    yield "zip that lies about its size", lying_zip


def _others(command: str) -> Iterator[tuple[str, str, Write]]:
    code = f"__import__('os').system({command!r})"
    yield "shots: Python code", SHOTS, content(code.encode())
    yield "shots: []", SHOTS, content(b"[]")
    yield "shots: not closed", SHOTS, content(b"[(0, 2000)")
    yield "shots: a million brackets", SHOTS, content(DEEP * b"(")
    yield "shots: not there", SHOTS, Path.unlink
    yield "spectrogram: not there", NPZ, Path.unlink
    yield "keyframe: empty", JPEG, content(b"")
    yield "keyframe: 10,000 x 10,000", JPEG, huge_jpeg(10_000)
    yield "keyframe: 60,000 x 60,000", JPEG, huge_jpeg(60_000)
    yield "keyframe: a link to a device", JPEG, _link_to_zero


def _link_to_zero(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def write_folders(into: Path, command: str) -> dict[Path, str]:
    """Folders with one thing wrong each; what it is, by path.

    Args:
        into: Where they go.
        command: Of the shell, which payloads would run.
    """
    found = {sound_folder(into / "sound"): "nothing wrong"}
    spectrograms = ((f"spectrogram: {a}", NPZ, b) for a, b in _spectrograms(command))
    for number, (what, name, write) in enumerate((*spectrograms, *_others(command))):
        path = sound_folder(into / f"f{number}")
        write(path / name)
        found[path] = what
    name = b"<script>$(touch owned) \x1b[2J\xff\n'; touch owned;"
    found[sound_folder(into / os.fsdecode(name))] = f"named {ascii(name)[1:]}"
    return found


def write_references(into: Path, command: str) -> dict[Path, str]:
    """Spectrograms by themselves; what is wrong, by path."""
    cases = dict(_spectrograms(command))
    return _each(into, cases, Path(NPZ).name, "spectrogram")


def _member(name: str, kind: bytes = tarfile.REGTYPE, **more: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def _archives(elsewhere: Path) -> Iterator[tuple[str, bytes]]:
    picture = io.BytesIO()
    Image.new("RGB", (64, 48)).save(picture, "JPEG")

    def file(name: str, data: bytes = picture.getvalue()) -> bytes:
        size = len(data)
        return _member(name, size=size) + data + bytes(-size % 512)

    sound = file(JPEG) + file(SHOTS, b"[]")
    yield "nothing wrong", sound
    for what, place in (("../ in names", "../../.."), ("absolute names", elsewhere)):
        there = (file(f"{place}/keyframes/1500.jpg"), file(f"{place}/{TRACE}"))
        yield what, sound + b"".join(there)
    yield "two folders in one", sound + file(f"b/{JPEG}") + file(f"b/{SHOTS}", b"[]")
    for what, kind, target in (
        ("symbolic link", tarfile.SYMTYPE, "/etc/passwd"),
        ("hard link", tarfile.LNKTYPE, "/etc/passwd"),
        ("device", tarfile.CHRTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
    ):
        link = _member("keyframes/1500.jpg", kind, linkname=target, devmajor=1)
        yield f"a keyframe is a {what}", sound + link
    out = _member("metadata", tarfile.SYMTYPE, linkname=str(elsewhere))
    yield "a folder is a link elsewhere", out + sound + file(f"metadata/{TRACE}.txt")
    sparse = sparse_member("keyframes/1500.jpg", 2**32)
    yield "a keyframe of 4 GiB in 512 bytes (sparse)", sound + sparse
    large = _member("keyframes/1500.jpg", size=2**32)
    yield "a keyframe of 4 GiB", sound + large + bytes(2**20)
    yield "500,001 files", 500_001 * _member("notes/x.txt")
    header = _member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=2**30)
    yield "a name of 1 GiB", header + bytes(2**20)


def write_archives(into: Path, elsewhere: Path) -> dict[Path, str]:
    """Archives; what is wrong, by path.

    Args:
        into: Where they go.
        elsewhere: A folder outside, which some try to write to.
    """
    found = {}
    for number, (what, data) in enumerate(_archives(elsewhere)):
        path = into / f"a{number}.tar.gz"
        path.write_bytes(gzip.compress(data + bytes(1024), compresslevel=1))
        found[path] = f"archive: {what}"
    whole = next(iter(found)).read_bytes()
    # Again and again one gzip member, of a file that is left out.
    info = tarfile.TarInfo("notes/zeros")
    info.size = 32 * 2**20
    zeros = gzip.compress(info.tobuf() + bytes(info.size))
    for name, what, data in (
        ("many.tar.gz", "17 GiB in all", 17 * 32 * zeros),
        ("half.tar.gz", "cut off", whole[: len(whole) // 2]),
        ("random.tar.gz", "random bytes", np.random.default_rng(0).bytes(5000)),
        ("empty.tar.gz", "empty", b""),
    ):
        (into / name).write_bytes(data)
        found[into / name] = f"archive: {what}"
    return found


def write_network(into: Path) -> tuple[Path, Path]:
    """A checkpoint and its configuration with nothing wrong."""
    checkpoint, config = into / "checkpoint.tar", into / "model_config.yml"
    save(checkpoint, {"state_dict": tensors(avnet(False))})
    config.write_text(AVNET % "false", encoding="utf-8")
    return checkpoint, config


def write_checkpoints(into: Path, command: str) -> dict[Path, str]:
    """Checkpoints; what is wrong, by path."""

    def pickled(data: bytes) -> Write:
        return lambda path: save(path, {}, pickled=data)

    def bomb(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("x/data.pkl", bytes(200 * 10**6))

    def without_numbers(path: Path) -> None:
        save(path, {"state_dict": tensors(avnet(False))})
        with zipfile.ZipFile(path) as old:
            head = old.read("checkpoint/data.pkl")
        save(path, {}, pickled=head)

    state = avnet(False)
    hostile = pickle.dumps({"state_dict": Payload(command)}, protocol=2)
    other = state | {"lin1.weight": np.zeros((512, 100))}
    nan = state | {"lin1.bias": np.full(512, np.nan)}
    cases: dict[str, Write] = {
        "empty": content(b""),
        "random bytes": content(np.random.default_rng(0).bytes(5000)),
        "pickle of os.system": pickled(hostile),
        "pickle of os.system, as before PyTorch 1.6": content(hostile),
        "calls that make 10 GB": pickled(reduce_bomb()),
        f"{DEEP:,} tuples in each other": pickled(deeply_nested()),
        "zip bomb": bomb,
        "numbers missing": without_numbers,
        "an array of another shape": lambda p: save(p, tensors(other)),
        "NaN in it": lambda p: save(p, tensors(nan)),
    }
    return _each(into, cases, "checkpoint.tar", "checkpoint.tar")


def write_configs(into: Path, command: str) -> dict[Path, str]:
    """Configurations; what is wrong, by path."""
    right = AVNET % "false"
    laughs = "a0: &a0 [x, x]\n"
    laughs += "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    code = f"\"__import__('os').system('{command}')\""
    cases: dict[str, Write] = {
        "references to references (bomb)": content((laughs + right).encode()),
        "a tag that calls os.system": content(
            f"MODEL: !!python/object/apply:os.system ['{command}']\n".encode()
        ),
        "Python code for a size": content(right.replace("(256, 256)", code).encode()),
        "10,000 brackets": content(10_000 * b"["),
        "no MODEL": content(b"INPUT: {}\n"),
        "bytes that are no text": content(bytes(range(256))),
    }
    return _each(into, cases, "model_config.yml", "model_config.yml")


def _each(into: Path, cases: dict[str, Write], name: str, kind: str) -> dict[Path, str]:
    found = {}
    for number, (what, write) in enumerate(cases.items()):
        path = into / f"{kind.split('.')[0]}_{number}" / name
        path.parent.mkdir(parents=True)
        write(path)
        found[path] = f"{kind}: {what}"
    return found
