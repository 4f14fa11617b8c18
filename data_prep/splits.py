"""Which videos train, which validate, which test."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from visxp_jax.data.dataset import SPLITS


def assign_splits(
    groups: Mapping[str, str], *, fractions: Sequence[float], seed: int
) -> dict[str, str]:
    """A split for each video, the same whenever the videos are the same.

    Args:
        groups: Group of each video by name. Each group is divided by itself, so that
            every split has videos of each where there are enough.
        fractions: Of train, validation, test; they sum to 1.
        seed: Another seed, another division.

    Returns:
        Split by name. A split is empty only where its fraction is 0 or where there are
        fewer videos than splits.
    """
    members = defaultdict(list)
    for name, group in groups.items():
        members[group].append(name)
    found: dict[str, str] = {}
    for names in members.values():
        found |= _divide(names, fractions, seed)
    wanted = {s for s, share in zip(SPLITS, fractions, strict=True) if share > 0}
    if len(members) > 1 and set(found.values()) != wanted:
        return _divide(list(groups), fractions, seed)
    return found


def _divide(names: list[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    def draw(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode()).digest()

    count = len(names)
    left = count - 1  # one stays for training
    taken = {}
    # Test first: with two videos a figure matters more than a curve.
    for split in ("test", "validation"):
        share = fractions[SPLITS.index(split)]
        taken[split] = min(left, max(1, round(share * count)) if share > 0 else 0)
        left -= taken[split]
    order = iter(sorted(names, key=draw))
    found = {}
    for split, size in taken.items():
        found |= {next(order): split for _ in range(size)}
    return found | dict.fromkeys(order, "train")
