"""Configurations: every check names the key and the value, and nothing is dropped."""

import dataclasses
import json
import re

import pytest

from configs import avc, selflabel, xdc
from visxp_jax.config import (
    AvcConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SelflabelConfig,
    from_dict,
    to_dict,
)
from visxp_jax.errors import VisxpError


def values(**changes):
    """The debug configuration as a dict, with `section.key` set to a value."""
    config = to_dict(from_dict(selflabel.get_config("debug").to_dict()))
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = config
        for name in sections:
            section = section[name]
        section[key] = value
    return config


OUT_OF_RANGE = [
    ("data.reader", "csv"),
    ("data.spectrogram", "cqt"),
    ("data.size_px", 15),
    ("data.size_px", 4097),
    ("data.videos", ""),
    ("data.batch_size", 1),
    ("data.shuffle_buffer", 0),
    ("data.crop", 0.0),
    ("data.crop", 1.01),
    ("data.crop", float("nan")),
    ("data.mask", -0.01),
    ("data.mask", 1.0),
    ("data.colour", -0.1),
    ("data.brightness", -0.1),
    ("data.gain", -0.1),
    ("data.gain", float("inf")),
    ("model.network", "resnet"),
    ("model.audio", "lstm"),
    ("model.pool", "max"),
    ("model.dtype", "float16"),
    ("model.width", 1),
    ("model.fusion_dim", 1),
    ("model.bn_momentum", 0.0),
    ("model.bn_momentum", 1.0),
    ("model.frame_mean", (0.5, 0.5)),
    ("model.frame_std", (0.5, 0.5, 0.0)),
    ("model.sound_std", 0.0),
    ("avc.optim.name", "lion"),
    ("avc.optim.learning_rate", 0.0),
    ("avc.optim.learning_rate", float("nan")),
    ("avc.optim.learning_rate", float("inf")),
    ("avc.optim.weight_decay", -1e-5),
    ("selflabel.optim.warmup_steps", -1),
    ("avc.steps", 0),
    ("avc.shifts", 0),
    ("avc.shifts", 16),
    ("avc.regularisation", -1.0),
    ("selflabel.steps", 0),
    ("selflabel.heads", 0),
    ("selflabel.clusters", 1),
    ("selflabel.sharpness", 0.0),
    ("selflabel.relabels", 0),
    ("selflabel.relabel_power", 0.0),
    ("selflabel.shifts", 0),
    ("selflabel.shifts", 16),
    ("selflabel.clustering", -1.0),
    ("selflabel.representation", -1.0),
    ("selflabel.regularisation", -1.0),
    ("selflabel.feature_dtype", "bfloat16"),
    ("selflabel.labels_from", "both"),
    ("selflabel.first_labels", "kmeans"),
    ("selflabel.sizes", "normal"),
    ("selflabel.passes", "all"),
    ("selflabel.passes", "each"),
    ("selflabel.head_groups", 0),
    ("selflabel.head_groups", 3),
    ("selflabel.align", True),
    ("run.log_every", 0),
    ("run.eval_every", 0),
    ("run.save_every", 0),
    ("run.keep_checkpoints", 0),
    ("run.max_skipped", 0),
    ("seed", -1),
    ("seed", 65_536),
    ("stages", ()),
    ("stages", ("avc", "avc")),
]
ON_THE_EDGE = {
    "data.size_px": 16,
    "data.batch_size": 9,
    "data.shuffle_buffer": 1,
    "data.crop": 1.0,
    "data.mask": 0.0,
    "model.width": 2,
    "model.fusion_dim": 2,
    "data.gain": 0.0,
    "avc.optim.warmup_steps": 0,
    "avc.optim.weight_decay": 0.0,
    "selflabel.clustering": 0.0,
    "avc.steps": 1,
    "selflabel.heads": 1,
    "selflabel.clusters": 2,
    "selflabel.relabels": 1,
    "run.log_every": 1,
    "seed": 65_535,
}


@pytest.mark.parametrize(("path", "value"), OUT_OF_RANGE)
def test_value_out_of_range_is_refused_by_key_and_value(path, value):
    line = f"^{re.escape(path)} must be .*got {re.escape(repr(value))}"
    with pytest.raises(VisxpError, match=line):
        from_dict(values(**{path: value}))


@pytest.mark.parametrize(("path", "value"), ON_THE_EDGE.items())
def test_value_on_the_edge_of_its_range_is_taken(path, value):
    config = from_dict(values(**{path: value}))
    for name in path.split("."):
        config = getattr(config, name)
    assert config == value


def test_every_checked_key_is_tried_out_of_range():
    """A key without a limit is one on this list, by decision."""
    free = {
        *("data.labels", "data.dir", "data.flip", "data.roll"),
        *("model.double_convolution", "avc.optim", "selflabel.optim"),
        *("selflabel.augmented_pass", "selflabel.train_mode_pass"),
        *("selflabel.balanced_sampling", "model.sound_mean"),
    }
    sections = {
        "data": DataConfig,
        "model": ModelConfig,
        "optim": OptimConfig,
        "avc": AvcConfig,
        "selflabel": SelflabelConfig,
        "run": RunConfig,
    }
    keys = {f"{s}.{f.name}" for s, c in sections.items() for f in dataclasses.fields(c)}
    tried = {".".join(path.split(".")[-2:]) for path, _ in OUT_OF_RANGE}
    assert keys - tried == free


def test_options_of_self_labelling_go_together_where_they_make_sense():
    section = from_dict(
        values(
            **{
                "selflabel.labels_from": "swapped",
                "selflabel.first_labels": "heads",
                "selflabel.align": True,
                "selflabel.passes": "each",
                "selflabel.augmented_pass": True,
                "selflabel.head_groups": 2,
            }
        )
    ).selflabel
    assert section.align
    assert section.passes == "each"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"labels_from": "swapped", "first_labels": "heads"}, "align must be True"),
        ({"labels_from": "pooled", "align": True}, "align must be False"),
        ({"passes": "in_turn"}, "head_groups must be 1 with passes='shared'"),
        ({"head_groups": 2}, "head_groups must be 1 with passes='shared'"),
    ],
)
def test_options_of_self_labelling_that_contradict_are_refused(changes, line):
    with pytest.raises(VisxpError, match=rf"selflabel\.{line}"):
        from_dict(values(**{f"selflabel.{k}": v for k, v in changes.items()}))


def test_section_of_xdc_has_no_key_of_self_labelling():
    config = xdc.get_config("debug")
    assert from_dict(config).xdc.clusters == 4
    config.xdc.sharpness = 25.0
    with pytest.raises(VisxpError, match=r"unknown config key 'xdc\.sharpness'"):
        from_dict(config)
    del config.xdc
    with pytest.raises(VisxpError, match=r"stage 'xdc' needs a section config\.xdc"):
        from_dict(config)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("data.batchsize", "did you mean 'data.batch_size'?"),
        ("avc.optim.learning_rat", "did you mean 'avc.optim.learning_rate'?"),
        ("sed", "did you mean 'seed'?"),
        ("model.zzz", "known: network, audio, width"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_known_one(path, hint):
    with pytest.raises(
        VisxpError, match=f"unknown config key '{path}'; {re.escape(hint)}"
    ):
        from_dict(values(**{path: 1}))


@pytest.mark.parametrize(
    "path", ["name", "data", "data.crop", "avc.optim.name", "run.log_every"]
)
def test_missing_key_is_named(path):
    config = values()
    *sections, key = path.split(".")
    section = config
    for name in sections:
        section = section[name]
    del section[key]
    with pytest.raises(VisxpError, match=f"'{path}' is missing"):
        from_dict(config)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", 3),
        ("seed", 1.0),
        ("seed", True),
        ("data.flip", 1),
        ("data.crop", "0.7"),
        ("data.batch_size", None),
        ("avc.optim.warmup_steps", 2.5),
        ("stages", "avc"),
        ("stages", 3),
        ("stages", None),
        ("data", 3),
        ("data", None),
        ("avc.optim", "adam"),
        ("run", None),
    ],
)
def test_value_of_another_type_is_refused_by_key_and_value(path, value):
    with pytest.raises(
        VisxpError, match=f"{re.escape(path)} must be .*got.*{re.escape(repr(value))}"
    ):
        from_dict(values(**{path: value}))


def test_whole_number_serves_as_a_float():
    crop = from_dict(values(**{"data.crop": 1})).data.crop
    assert crop == 1.0
    assert type(crop) is float


def test_unknown_stage_is_refused_with_the_known_ones():
    with pytest.raises(
        VisxpError, match="one of avc, contrastive, selflabel, shhc, xdc, got 'vicreg'"
    ):
        from_dict(values(stages=("avc", "vicreg")))


@pytest.mark.parametrize("empty", [True, False])
def test_stage_without_its_section_is_refused(empty):
    config = values(selflabel=None)
    if not empty:
        del config["selflabel"]
    with pytest.raises(VisxpError, match="'selflabel' needs a section"):
        from_dict(config)


def test_section_of_a_stage_that_does_not_run_may_be_missing():
    config = from_dict(avc.get_config("debug").to_dict())
    assert config.selflabel is None
    assert config.total_steps == 4
    assert config.stage("avc") is config.avc


def test_total_steps_are_those_of_the_stages_that_run():
    steps = {"avc.steps": 30, "selflabel.steps": 12}
    assert from_dict(values(**steps)).total_steps == 42
    assert from_dict(values(stages=("selflabel",), **steps)).total_steps == 12


@pytest.mark.parametrize("module", [avc, selflabel])
@pytest.mark.parametrize("arg", ["", "debug"])
def test_configuration_survives_the_way_through_json(module, arg):
    config = from_dict(module.get_config(arg))
    assert from_dict(to_dict(config)) == config
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    as_given = json.loads(module.get_config(arg).to_json())
    written = json.loads(json.dumps(to_dict(config)))
    assert {k: v for k, v in written.items() if v is not None} == as_given


def test_configuration_is_frozen():
    config = from_dict(values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.data.crop = 0.5  # pyright: ignore[reportAttributeAccessIssue]
