"""Checkpoints of the production system: equal vectors, and nothing of them is run."""

import collections
import os
import pickle
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.models.test_published import GOLDEN, fill, inputs
from tests.production.torch_zip import Saved, save
from visxp_jax.errors import VisxpError
from visxp_jax.production import checkpoint
from visxp_jax.production.files import Zip
from visxp_jax.production.pickles import read_pickle
from visxp_jax.production.settings import Settings, read_settings
from visxp_jax.production.torch_file import TorchFile

AVNET = """
MODEL: {TYPE: AVNet, N_CLASSES: 5, DOUBLE_CONVOLUTION: %s}
INPUT:
  KEYFRAME:
    DIMENSIONALITY: (256, 256)
    NORMALIZATION: "((0.3961, 0.3502, 0.3224), (0.2298, 0.2237, 0.2197))"
  SPECTROGRAM:
    DIMENSIONALITY: (1, 257, 99)
    NORMALIZATION: ((0.0467), (0.9170))
    SAMPLERATE_HZ: 24000
"""
VISUALNET = """
MODEL: {TYPE: VisualNet, DOUBLE_CONVOLUTION: true}
INPUT:
  KEYFRAME:
    DIMENSIONALITY: [256, 256]
    NORMALIZATION: "((0.4, 0.4, 0.3), (0.2, 0.2, 0.2))"
"""
WIDTHS = (64, 128, 256, 512)


def tower(prefix: str, channels: int, double: bool) -> dict[str, np.ndarray]:
    """Arrays of one tower under the names of its state_dict, by the golden rule."""
    shapes = {}
    for block, width in enumerate(WIDTHS, start=1):
        for half in ("", "B") if double else ("",):
            name = f"{prefix}conv{block}{half}"
            shapes[f"{name}.weight"] = (width, channels, 3, 3)
            shapes[f"{name}.bias"] = (width,)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}_bn.{part}"] = (width,)
            channels = width
    state = {name: fill(name, shape) for name, shape in shapes.items()}
    state |= {f"{n}_bn.num_batches_tracked": np.array(7) for n in ("conv1",)}
    return state


def avnet(double: bool) -> dict[str, np.ndarray]:
    state = tower("video_model.", 3, double) | tower("audio_model.", 1, double)
    for name, shape in {
        "video_model.fc.weight": (5, 512),
        "video_model.fc.bias": (5,),
        "audio_model.fc.weight": (5, 512),
        "audio_model.fc.bias": (5,),
        "lin1.weight": (512, 1024),
        "lin1.bias": (512,),
        "lin2.weight": (5, 512),
        "lin2.bias": (5,),
    }.items():
        state[name] = fill(name, shape)
    return state


def tensors(state: dict[str, np.ndarray]) -> collections.OrderedDict:
    """As torch has them: with metadata, which are an attribute of the dict."""
    made = collections.OrderedDict(
        (name, Saved(x.astype(np.float32 if x.dtype.kind == "f" else np.int64)))
        for name, x in state.items()
    )
    made._metadata = collections.OrderedDict(version=1)
    return made


def settings_of(text: str, tmp_path: Path) -> Settings:
    path = tmp_path / "model_config.yml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path)


@pytest.mark.parametrize("double", [True, False])
def test_avnet_gives_the_vectors_of_the_original(double, tmp_path):
    path = tmp_path / "checkpoint.tar"
    save(path, {"epoch": 3, "state_dict": tensors(avnet(double)), "best": 0.5})
    settings = settings_of(AVNET % str(double).lower(), tmp_path)
    assert settings.classes == 5
    model = checkpoint.published(checkpoint.read_state(path), settings, path)
    audio, video = checkpoint.make_encoder(model)(*inputs())
    name = "avnet_double" if double else "avnet_single"
    for found, wanted in ((audio, "audio_feat"), (video, "video_feat")):
        np.testing.assert_allclose(
            found, GOLDEN[f"{name}/{wanted}"], rtol=1e-4, atol=1e-4
        )
    logits = model.network.apply(
        model.variables,
        "lin2",
        model.network.apply(model.variables, video, audio, method="fuse"),
        method="head",
    )
    np.testing.assert_allclose(logits, GOLDEN[f"{name}/logits"], rtol=1e-3, atol=1e-3)


def test_visualnet_is_a_bare_state_dict(tmp_path):
    path = tmp_path / "checkpoint.tar"
    state = tower("video_model.", 3, True)
    bare = {name.removeprefix("video_model."): x for name, x in state.items()}
    save(path, tensors(bare))
    settings = settings_of(VISUALNET, tmp_path)
    assert settings.audio is None
    model = checkpoint.published(checkpoint.read_state(path), settings, path)
    audio, video = checkpoint.make_encoder(model)(inputs()[0], None)
    assert audio is None
    wanted = GOLDEN["avnet_double/video_feat"]
    np.testing.assert_allclose(video, wanted, rtol=1e-4, atol=1e-4)


def test_weights_of_several_gpus_have_one_prefix_more(tmp_path):
    path = tmp_path / "checkpoint.tar"
    state = avnet(False)
    save(path, {"state_dict": tensors({f"module.{n}": x for n, x in state.items()})})
    settings = settings_of(AVNET % "false", tmp_path)
    model = checkpoint.published(checkpoint.read_state(path), settings, path)
    kernel = model.variables["params"]["lin1"]["kernel"]
    np.testing.assert_array_equal(kernel, state["lin1.weight"].T.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"lin1.bias": None}, r"floats?|\[512\] for 'lin1.bias', got nothing"),
        (
            {"lin2.bias": np.zeros(6)},
            r"floats \[5\] for 'lin2.bias', got float32 \[6\]",
        ),
        ({"other": np.zeros(2)}, r"nothing for 'other', got \[2\]"),
        ({"lin2.bias": np.full(5, np.nan)}, "finite numbers for 'lin2.bias'"),
        ({"video_model.conv1_bn.running_var": -np.ones(64)}, "numbers from 0 for"),
    ],
)
def test_weights_of_another_network_are_refused(change, line, tmp_path):
    state = {n: x for n, x in (avnet(False) | change).items() if x is not None}
    path = tmp_path / "checkpoint.tar"
    save(path, {"state_dict": tensors(state)})
    with pytest.raises(VisxpError, match=line):
        checkpoint.published(
            checkpoint.read_state(path),
            settings_of(AVNET % "false", tmp_path),
            path,
        )


def test_weights_too_large_for_float32_are_refused(tmp_path):
    path, state = tmp_path / "checkpoint.tar", tensors(avnet(False))
    state["lin2.bias"] = Saved(np.full(5, 1e300))
    save(path, state)
    settings = settings_of(AVNET % "false", tmp_path)
    with pytest.raises(VisxpError, match="finite numbers for 'lin2.bias'"):
        checkpoint.published(checkpoint.read_state(path), settings, path)


def test_numbers_of_every_type_keep_their_value(tmp_path):
    path = tmp_path / "some.pt"
    rng = np.random.default_rng(0)
    wanted = {
        kind: (10 * rng.standard_normal((3, 4))).astype(kind)
        for kind in ("f4", "f8", "f2", "i8", "u1")
    }
    wanted["scalar"] = np.array(2.5, "f4")
    wanted["empty"] = np.zeros((0, 3), "f4")
    save(path, {name: Saved(x) for name, x in wanted.items()})
    with TorchFile(path) as file:
        for name, x in wanted.items():
            found = file.array(file.saved[name])
            assert found.dtype == x.dtype
            np.testing.assert_array_equal(found, x)


class Hostile:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["system", "eval", "exec", "method"])
def test_a_hostile_checkpoint_is_refused_and_nothing_of_it_runs(
    protocol, kind, tmp_path
):
    trace = tmp_path / "ran"
    call = {
        "system": (os.system, f"touch {trace}"),
        "eval": (eval, f"open({str(trace)!r}, 'w').close()"),
        "exec": (exec, f"open({str(trace)!r}, 'w').close()"),
        "method": (Path.touch, trace),
    }[kind]
    evil = pickle.dumps({"state_dict": Hostile(*call)}, protocol)
    path = tmp_path / "checkpoint.tar"
    save(path, None, pickled=evil)
    with pytest.raises(VisxpError, match="may not|must hold"):
        checkpoint.read_state(path)
    assert not trace.exists()
    pickle.loads(evil)  # it is what it says
    assert trace.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"garbage",
        b"\x80\x02.",
        b"\x80\x02t.",
        b"\x80\x02h\x05.",
        b"\x80\x02\x85.",
        b"\x80\x02}s.",
        b"\x80\x02K\x01b.",
        b"\x80\x02(K\x01e.",
        b"\x80\x02X\xff\xff\xff\x7f.",
        b"\x80\x02(ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02tR.",
        b"\x80\x02(X\x07\x00\x00\x00storageX\x01\x00\x00\x000tQ.",
        b"\x80\x02}K\x01" + 60 * b"2\x86" + b"Ns.",  # to hash takes for ever
        b"\x80\x02}K\x01" + 1_500_000 * b"\x85" + b"Ns.",
        b"\x80\x02cno.such\nname\n)R.",
    ],
)
def test_damaged_pickles_are_refused_in_one_line(pickled, tmp_path):
    path = tmp_path / "checkpoint.tar"
    save(path, None, pickled=pickled)
    with pytest.raises(VisxpError) as refused:
        checkpoint.read_state(path)
    assert "\n" not in str(refused.value)


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    path = tmp_path / "checkpoint.tar"
    with pytest.raises(VisxpError, match="No such file"):
        TorchFile(path)
    path.mkdir()
    with pytest.raises(VisxpError, match="not a file"):
        TorchFile(path)
    path.rmdir()
    path.write_bytes(b"\x80\x02" + bytes(100))
    with pytest.raises(VisxpError, match="it is no zip; files of PyTorch before 1.6"):
        TorchFile(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/other", b"")
    with pytest.raises(VisxpError, match="no data.pkl"):
        TorchFile(path)


def test_tensors_beyond_their_numbers_are_refused(tmp_path):
    path = tmp_path / "some.pt"
    save(path, {"x": Saved(np.zeros(4, np.float32))})
    with TorchFile(path) as file:
        tensor = file.saved["x"]
        for bad in (
            {"shape": (5,)},
            {"offset": 1},
            {"shape": (2, 2), "strides": (1, 3)},
            {"shape": (10**11,), "strides": (0,)},
            {"storage": tensor.storage._replace(part="1")},
            {"storage": tensor.storage._replace(size=3)},
        ):
            with pytest.raises(VisxpError, match="beyond its storage|missing|is over"):
                file.array(tensor._replace(**bad))


def test_parts_over_a_limit_are_refused(monkeypatch, tmp_path):
    path = tmp_path / "some.pt"
    save(path, {"x": Saved(np.zeros(4, np.float32))})
    for name, value in (
        ("MAX_BYTES", 100),
        ("MAX_LIST_BYTES", 100),
        ("MAX_PICKLE_BYTES", 10),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"visxp_jax.production.torch_file.{name}", value)
            with pytest.raises(VisxpError, match=r"over (the limit of )?\d"):
                TorchFile(path)


def test_tensors_that_share_their_numbers_too_often_are_refused(tmp_path):
    path = tmp_path / "some.pt"
    save(path, {"x": Saved(np.zeros(4000, np.float32))})
    with TorchFile(path) as file:
        file.array(file.saved["x"])
        with pytest.raises(VisxpError, match="beyond its storage"):
            file.array(file.saved["x"])


def test_each_storage_is_read_once_however_many_tensors_share_it(monkeypatch, tmp_path):
    path, (one, two) = tmp_path / "some.pt", np.arange(2000, dtype="f4").reshape(2, -1)
    wanted = {}
    for i in range(0, 1000, 2):  # in turns, as weights and biases may be
        wanted |= {f"a{i}": (one[i : i + 2], one), f"b{i}": (two[i : i + 2], two)}
    save(path, {name: Saved(*arrays) for name, arrays in wanted.items()})
    read, names = Zip.read, []

    def counted(self: Zip, name: str, most: int) -> bytes:
        names.append(name)
        return read(self, name, most)

    monkeypatch.setattr(Zip, "read", counted)
    state = checkpoint.read_state(path)
    assert sorted(names)[-2:] == ["some/data/0", "some/data/1"]
    assert len(names) == 4  # and what is no tensor
    assert list(state) == list(wanted)
    for name, (array, _) in wanted.items():
        np.testing.assert_array_equal(state[name], array)
    names.clear()
    many = pytest.raises(VisxpError, match="its storages are more than it holds")
    with TorchFile(path) as file, many:  # in another order, no more than the file has
        list(map(file.array, file.saved.values()))
    assert len(names) < 30


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: {1: 2**64}, "at most 8 bytes"),
        (lambda: {-(2**80): 1}, "at most 8 bytes"),
        (lambda: {"x" * 1001: 1}, "at most 1,000 characters"),
        (lambda: [{} for _ in range(1_000_001)], "at most 1,000,000 steps"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_values_that_cost_more_than_they_take_are_refused(make, line, protocol):
    with pytest.raises(VisxpError, match=line):
        read_pickle(pickle.dumps(make(), protocol), {})


def test_long_names_are_not_put_together_anew_each_time():
    long = b"X" + (1000).to_bytes(4, "little") + 1000 * b"x"
    with pytest.raises(VisxpError, match="at most 1,000 characters"):
        read_pickle(b"\x80\x04" + long + b"2\x93.", {})


def test_dicts_that_calls_make_have_a_limit_of_their_own(tmp_path):
    """Whatever the length of the pickle is: each call may copy one list again."""
    path, pairs = tmp_path / "some.pt", [(i, None) for i in range(1000)]
    again = b"ccollections\nOrderedDict\nh\xff\x85R"
    for calls, line in ((100, "nothing else"), (101, "too much of too little")):
        listed = pickle.dumps(pairs, 2)[:-1] + b"q\xff"
        save(path, None, pickled=listed + calls * again + b"0" * calls + b".")
        with pytest.raises(VisxpError, match=line):
            checkpoint.read_state(path)


def test_names_are_not_told_whole(tmp_path):
    path, name = tmp_path / "some.pt", "x" * 60_000
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/data.pkl", b"")
        file.writestr(f"{name}/byteorder", "longer than it may be")
    with pytest.raises(VisxpError, match="is over 16 bytes") as refused:
        TorchFile(path)
    assert len(str(refused.value)) < 500
    save(path, {"x": Saved(np.zeros(4, np.float32))})
    with TorchFile(path) as file:
        tensor = file.saved["x"]
        for bad in ({"storage": tensor.storage._replace(part=name)}, {"offset": 1}):
            with pytest.raises(VisxpError) as refused:
                file.array(tensor._replace(**bad))
            assert len(str(refused.value)) < 500


def test_a_digest_is_of_a_regular_file(tmp_path):
    with pytest.raises(OSError, match="it is not a file"):
        checkpoint.digest(Path("/dev/null"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is not a file"):  # and does not wait
        checkpoint.digest(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("AVNet", "Other", "MODEL.TYPE must be AVNet or VisualNet, got 'Other'"),
        ("N_CLASSES: 5, ", "", "must have MODEL.N_CLASSES"),
        ("N_CLASSES: 5", "N_CLASSES: five", "MODEL.N_CLASSES must be a whole number"),
        ("(256, 256)", "(256,)", "DIMENSIONALITY must be 2 sizes, got"),
        (
            "(256, 256)",
            "__import__('os')",
            "DIMENSIONALITY must be numbers in brackets",
        ),
        ("(256, 256)", "!!python/object:os.system x", "must be YAML"),
        ("(256, 256)", "!!int x", "must be YAML"),
        ("24000", "2001-99-99", "must be YAML"),
        ("24000", "&a [1]\nB: [*a, *a]", "references .* are not allowed"),
        ("(256, 256)", "(" * 10_000, "numbers in brackets"),
        ("(256, 256)", "'{[]}'", "numbers in brackets"),
        ("(256, 256)", "(512, 512)", "leave 32 cells where the last pool"),
        ("(1, 257, 99)", "(1, 257, 66)", "leave 4 cells where the last pool"),
        ("0.9170", "1e-60", "NORMALIZATION must be"),
        ("0.2298", "0.0", "NORMALIZATION must be .mean, std. of 3 channels"),
        ("  SPECTROGRAM", "  SPECTRUM", "must have INPUT.SPECTROGRAM"),
        ("24000", "[]", "SAMPLERATE_HZ must be a whole number"),
        ("24000", "[" * 10_000, "must be YAML: too much is inside each other"),
    ],
)
def test_settings_that_are_wrong_are_named(old, new, line, tmp_path):
    text = AVNET % "true"
    assert old in text

    def use() -> None:
        settings = settings_of(text.replace(old, new), tmp_path)
        checkpoint.published({}, settings, tmp_path)

    with pytest.raises(VisxpError, match=line) as refused:
        use()
    assert "\n" not in str(refused.value)


def test_one_number_stands_for_all_channels(tmp_path):
    text = VISUALNET.replace("((0.4, 0.4, 0.3), (0.2, 0.2, 0.2))", "(0.5, (0.25,))")
    frame = settings_of(text, tmp_path).frame
    assert frame.mean == (0.5, 0.5, 0.5)
    assert frame.std == (0.25, 0.25, 0.25)


def test_settings_of_the_first_versions_are_read(tmp_path):
    old = (AVNET % "true").replace("SPECTROGRAM", "SPECTOGRAM")
    assert settings_of(old, tmp_path) == settings_of(AVNET % "true", tmp_path)


def test_an_encoder_is_compiled_once_for_one_shape(tmp_path):
    path = tmp_path / "checkpoint.tar"
    save(path, {"state_dict": tensors(avnet(False))})
    settings = settings_of(AVNET % "false", tmp_path)
    encode = checkpoint.make_encoder(
        checkpoint.published(checkpoint.read_state(path), settings, path)
    )
    image, sound = inputs()
    first = encode(image, sound)
    with jax.no_tracing():
        again = encode(image, sound)
    np.testing.assert_array_equal(first[1], again[1])
