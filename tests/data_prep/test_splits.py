from collections import Counter

import pytest

from data_prep.splits import assign_splits
from visxp_jax.data.dataset import SPLITS

FRACTIONS = (0.7, 0.1, 0.2)


def names(count, prefix="v"):
    return [f"{prefix}{i:03d}" for i in range(count)]


def test_shares_are_kept():
    found = assign_splits(dict.fromkeys(names(200), ""), fractions=FRACTIONS, seed=0)
    assert Counter(found.values()) == {"train": 140, "validation": 20, "test": 40}


def test_every_split_has_every_group():
    groups = {n: g for g in ("cat", "dog", "cow") for n in names(5, g)}
    found = assign_splits(groups, fractions=FRACTIONS, seed=0)
    assert {(groups[n], s) for n, s in found.items()} == {
        (g, s) for g in ("cat", "dog", "cow") for s in SPLITS
    }


def test_order_does_not_matter_and_seed_does():
    groups = dict.fromkeys(names(50), "")
    found = assign_splits(groups, fractions=FRACTIONS, seed=0)
    backwards = dict(reversed(groups.items()))
    assert assign_splits(backwards, fractions=FRACTIONS, seed=0) == found
    assert assign_splits(groups, fractions=FRACTIONS, seed=1) != found


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {"train": 1}),
        (2, {"train": 1, "test": 1}),
        (3, {"train": 1, "validation": 1, "test": 1}),
        (4, {"train": 2, "validation": 1, "test": 1}),
    ],
)
def test_few_videos(count, expected):
    found = assign_splits(dict.fromkeys(names(count), ""), fractions=FRACTIONS, seed=0)
    assert Counter(found.values()) == expected


def test_groups_of_one_are_divided_together():
    groups = {name: name for name in names(10)}
    found = assign_splits(groups, fractions=FRACTIONS, seed=0)
    assert set(found.values()) == set(SPLITS)


def test_share_of_zero_stays_empty():
    found = assign_splits(dict.fromkeys(names(9), ""), fractions=(0.8, 0, 0.2), seed=0)
    assert Counter(found.values()) == {"train": 7, "test": 2}
