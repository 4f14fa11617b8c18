"""Parts of hosts: each file is done by one of them, wherever it is mounted."""

from pathlib import Path

import pytest

from visxp_jax.errors import VisxpError
from visxp_jax.hosts import Shard

FILES = [f"{folder}/{i}.mp4" for folder in ("a", "b/c") for i in range(50)]


def parts(root: Path, of: int) -> list[list[str]]:
    found = []
    for number in range(of):
        shard = Shard(number, of)
        found.append([x for x in FILES if shard.has(root / x, [Path("/else"), root])])
    return found


def test_each_file_is_done_by_one_host_wherever_it_is_mounted():
    here, there = parts(Path("/mnt/a"), 3), parts(Path("/archive"), 3)
    assert here == there
    assert sorted(sum(here, [])) == sorted(FILES)
    assert all(len(part) > 20 for part in here)


def test_a_file_that_is_named_itself_counts_by_its_name():
    path = Path("/mnt/a/x.mp4")
    assert [Shard(i, 2).has(path, [path]) for i in range(2)] == [
        Shard(i, 2).has(Path("/b/x.mp4")) for i in range(2)
    ]


def test_parts_of_one_number_of_hosts_go_on_at_once_and_no_others(tmp_path):
    with Shard(0, 2).locked(tmp_path), Shard(1, 2).locked(tmp_path):
        for other in (Shard(0, 2), Shard(), Shard(2, 3)):
            with pytest.raises(VisxpError, match="in use"), other.locked(tmp_path):
                pass
    with Shard().locked(tmp_path):
        pass
