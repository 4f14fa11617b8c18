"""How much memory a device has, and how much of it logits may take."""

import os
from functools import cache
from pathlib import Path

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

# Files of the control group that limits a process on Linux; version 2 and version 1.
CGROUPS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# Logits are held three times over while they are balanced: themselves, with padded rows
# set to 0, and their exponentials. Twice more where those of two modalities are pooled.
COPIES_OF_LOGITS, COPIES_TO_POOL = 3, 2
# More than this share of a device is not given to logits: they come in blocks then.
SHARE_OF_LOGITS = 0.25


@cache
def device_bytes(mesh: jax.sharding.Mesh) -> int:
    """Memory of a device, the smallest of all hosts; CPU devices share the host's."""
    stats = mesh.local_devices[0].memory_stats() or {}
    found = host_bytes() // jax.local_device_count()
    if "bytes_limit" in stats:
        found = stats["bytes_limit"]
    if jax.process_count() > 1:  # what fits must be the same everywhere
        found = process_allgather(np.array(found, np.float64)).min()
    return int(found)


def host_bytes() -> int:
    """Memory that this process may use."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in CGROUPS:
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # not there, or 'max'
            continue
    return min(limits)


def logits_fit(n: int, k: int, mesh: jax.sharding.Mesh, *, modalities: int = 1) -> bool:
    """Whether the logits of n clips over k clusters may be held at once."""
    need = logits_bytes(n, k, mesh, modalities=modalities)
    return need <= SHARE_OF_LOGITS * device_bytes(mesh)


def logits_bytes(
    n: int, k: int, mesh: jax.sharding.Mesh, *, modalities: int = 1
) -> int:
    """What they take of a device."""
    copies = COPIES_OF_LOGITS + COPIES_TO_POOL * (modalities - 1)
    return copies * 4 * k * -(-n // mesh.size)


def size(num_bytes: float) -> str:
    """Bytes for people: '1.5 GB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            break
        num_bytes, unit = num_bytes / 1000, "TB"
    return f"{num_bytes:.3g} {unit}"
