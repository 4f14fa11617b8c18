"""What a device holds, and what is said and refused before labels are made."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from configs import shhc, xdc
from tests.small import small_config, small_model
from visxp_jax import estimate, memory
from visxp_jax.config import from_dict
from visxp_jax.errors import VisxpError
from visxp_jax.estimate import foresee, label_memory
from visxp_jax.methods import selflabel
from visxp_jax.methods.label_solver import LabelSolver
from visxp_jax.models.bind import Linear
from visxp_jax.sharding import EVERYWHERE, ROWS, make_mesh


def session(mesh, clips: int, **changes):
    """As much of one as is looked at."""
    config = small_config(**changes)
    dataset = SimpleNamespace(num_usable=lambda s: clips, num_clips=lambda s: clips)
    return SimpleNamespace(
        config=config, mesh=mesh, dataset=dataset, model=small_model(config)
    )


def test_host_bytes_is_the_smallest_of_memory_and_limits(tmp_path, monkeypatch):
    physical = memory.host_bytes()
    assert physical > 2**28
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUPS", (tmp_path / "none", limit))
    limit.write_text("max\n")
    assert memory.host_bytes() >= physical
    limit.write_text("1000\n")
    assert memory.host_bytes() == 1000


def test_devices_of_a_host_share_its_memory():
    one = memory.device_bytes(make_mesh())
    assert one == memory.host_bytes() // jax.local_device_count()


def test_logits_fit_up_to_a_share_of_the_device_and_rows_are_split(monkeypatch):
    monkeypatch.setattr(memory, "device_bytes", lambda mesh: 48_000)
    one, eight = make_mesh(jax.devices()[:1]), make_mesh()
    assert memory.logits_fit(100, 10, one)  # 3 x 4 x 1000 bytes
    assert not memory.logits_fit(101, 10, one)
    assert memory.logits_fit(800, 10, eight)


def test_memory_of_labels_counts_each_part_and_goes_down_with_devices():
    changes = {"selflabel.clusters": 309, "selflabel.heads": 10}
    one = label_memory(
        session(make_mesh(jax.devices()[:1]), 2**20, **changes), "selflabel"
    )
    eight = label_memory(session(make_mesh(), 2**20, **changes), "selflabel")
    d = small_config().model.fusion_dim
    assert one is not None
    assert one.features == 2**20 * d * 4 * 2
    assert one.labels == 3 * 2**20 * 10 * 4
    assert eight is not None
    assert eight.features == one.features // 8
    assert eight.labels == one.labels // 8
    assert label_memory(session(make_mesh(), 2**20), "avc") is None
    half = label_memory(
        session(make_mesh(), 2**20, **{"selflabel.feature_dtype": "float16"}),
        "selflabel",
    )
    assert half is not None
    assert half.features == eight.features // 2


# In widths of a tower: what is kept, what a column is scored by, what k-means copies.
@pytest.mark.parametrize(
    ("source", "first", "kept", "scored", "scaled"),
    [
        ("pooled", "features", 2, 2, 6),
        ("swapped", "features", 2, 1, 6),
        ("video", "features", 1, 1, 1),
        ("audio", "heads", 1, 1, 0),
    ],
)
def test_vectors_that_no_label_comes_from_are_not_kept(
    source, first, kept, scored, scaled
):
    changes = {"selflabel.labels_from": source, "selflabel.first_labels": first}
    changes["selflabel.align"] = False
    work = estimate.work_of(session(make_mesh(), 1024, **changes), "selflabel")
    width = 8 * small_config().model.width
    assert work is not None
    found = (work.kept, work.scored, work.scaled)
    assert found == (kept * width, scored * width, scaled * width)


def test_kmeans_of_each_modality_copies_one_at_a_time():
    made = session(make_mesh(), 1024)
    made.config = from_dict(xdc.get_config("debug"))
    work = estimate.work_of(made, "xdc")
    width = 8 * made.config.model.width
    assert work is not None
    assert (work.kept, work.scored, work.scaled) == (2 * width, width, width)
    assert not work.modalities


@pytest.mark.parametrize(
    ("source", "columns", "modalities"),
    [("fused", 1, 1), ("pooled", 1, 2), ("swapped", 2, 1)],
)
def test_a_hierarchy_has_one_column_for_each_set(source, columns, modalities):
    made = session(make_mesh(), 1024)
    values = shhc.get_config("debug")
    values.shhc.labels_from = source
    made.config = from_dict(values)
    work = estimate.work_of(made, "shhc")
    assert work is not None
    assert work.first
    assert (work.first_columns, work.columns) == (1, columns)
    assert work.modalities == modalities


@pytest.mark.parametrize("first", ["features", "heads"])
@pytest.mark.parametrize("fits", [True, False])
def test_time_is_of_the_passes_and_of_each_column_and_says_the_first(
    first, fits, monkeypatch
):
    made = session(
        make_mesh(), 4096, **{"selflabel.first_labels": first, "selflabel.heads": 3}
    )
    made.host_batch = made.config.data.batch_size
    made.reader = SimpleNamespace(ordered=lambda *_, **__: iter([1, 2]))
    made.encoder = lambda *_: None
    monkeypatch.setattr(estimate, "_seconds", lambda function: 1.0)
    monkeypatch.setattr(estimate, "logits_fit", lambda *_, **__: fits)
    work = estimate.work_of(made, "selflabel")
    assert work is not None
    begin, each = estimate.label_seconds(made, None, None, "selflabel", work)
    encode = 4096 / made.config.data.batch_size
    column = estimate.READS / 2**24 * 4096 * 4 if fits else estimate.SWEEPS
    assert each == pytest.approx(encode + 3 * column / 8)
    balanced = encode + 3 * estimate.BALANCED_SWEEPS / 8
    assert begin == pytest.approx(each if first == "heads" else balanced)


def test_heads_that_take_turns_are_all_labelled_at_first():
    changes = {"passes": "in_turn", "head_groups": 2, "heads": 4}
    changes |= {"labels_from": "swapped", "augmented_pass": True}
    made = session(
        make_mesh(), 4096, **{f"selflabel.{k}": v for k, v in changes.items()}
    )
    work = estimate.work_of(made, "selflabel")
    assert work is not None
    # First labels, of all features, are the same for both sets.
    assert (work.first_columns, work.columns, work.passes) == (4, 4, 1)
    by_heads = {"selflabel.first_labels": "heads", "selflabel.align": True}
    work = estimate.work_of(
        session(
            make_mesh(),
            4096,
            **by_heads,
            **{f"selflabel.{k}": v for k, v in changes.items()},
        ),
        "selflabel",
    )
    assert work is not None
    assert (work.first_columns, work.columns) == (8, 4)


@pytest.mark.parametrize(
    ("source", "dtype"), [("fused", "float16"), ("pooled", "float32")]
)
def test_estimate_is_above_what_the_compiler_plans_and_not_far(source, dtype):
    n, d, k = 65_536, 64, 16
    mesh = make_mesh(jax.devices()[:1])
    section = small_config().selflabel
    assert section is not None
    first = "features" if source == "fused" else "heads"
    section = dataclasses.replace(
        section, clusters=k, labels_from=source, first_labels=first
    )
    names = selflabel.PLANS[source].sources[0]
    rows = {name: jax.ShapeDtypeStruct((n, d), dtype) for name in names}
    ids = jax.ShapeDtypeStruct((n,), "int32")
    solver = LabelSolver(section)

    def planned(function, first, *rest):
        split = jax.shard_map(
            partial(function, True),
            mesh=mesh,
            in_specs=(EVERYWHERE, ROWS, ROWS, EVERYWHERE),
            out_specs=(ROWS, EVERYWHERE),
        )
        compiled = jax.jit(split).lower(first, rows, ids, rest).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    weights = {name: Linear(jnp.zeros((d, k)), jnp.zeros(k)) for name in names}
    key = jax.random.key(0)
    estimate = memory.logits_bytes(n, k, mesh, modalities=len(names))
    found = planned(solver._label, weights, key)
    assert found <= estimate * 1.2 + 4e6  # and a sample and a block
    assert found >= estimate / 3
    features = n * d * len(names) * jnp.dtype(dtype).itemsize
    grouped = planned(solver._group, key)
    copies = 3 if len(names) > 1 else 1
    assert grouped <= copies * features * 1.1 + 1.5e7
    assert grouped >= copies * features / 2


def test_labels_that_do_not_fit_are_refused_with_the_numbers(monkeypatch):
    made = session(make_mesh(jax.devices()[:1]), 2_000_000)
    monkeypatch.setattr(estimate, "device_bytes", lambda mesh: 10**8)
    line = (
        r"stage selflabel must fit into the 100 MB of a device, but 2,000,000 clips "
        r"and 4 clusters take \S+ [MG]B of each device \(features 256 MB.*; use more"
    )
    with pytest.raises(VisxpError, match=line):
        foresee(made, None, None)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (25.34e9, "25.3 GB"),
        (1e15, "1e+03 TB"),
    ],
)
def test_sizes_for_people(num_bytes, text):
    assert memory.size(num_bytes) == text
