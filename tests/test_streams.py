"""Items are read ahead, in order, no further than allowed; errors and ends arrive."""

import threading
import time

import pytest

from visxp_jax.streams import groups, read_ahead


def count(n: int, made: list[int], ended: threading.Event):
    try:
        for i in range(n):
            made.append(i)
            yield i
    finally:
        ended.set()


def test_items_come_in_order_and_the_generator_is_ended():
    made, ended = [], threading.Event()
    assert list(read_ahead(lambda _: count(100, made, ended), 3)) == list(range(100))
    assert ended.is_set()


def test_it_works_ahead_but_no_further_than_allowed():
    made, ended = [], threading.Event()
    items = read_ahead(lambda _: count(100, made, ended), 3)
    assert next(items) == 0
    until = time.monotonic() + 10
    while len(made) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 5  # one handed out, three that wait, one in hand
    items.close()
    assert ended.is_set()
    assert len(made) <= 6


def test_what_is_raised_is_raised_here_after_what_came_before():
    def broken():
        yield 1
        raise ValueError("no more")

    items = read_ahead(lambda _: broken(), 5)
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_one_that_takes_long_over_an_item_is_told_to_stop():
    def slow(stopped):
        yield 0
        while not stopped():
            time.sleep(0.01)

    items = read_ahead(slow, 2)
    assert next(items) == 0
    items.close()
    assert not [x for x in threading.enumerate() if x.name == "read ahead"]


def test_groups_have_so_many_of_a_kind_and_what_is_among_them():
    found = list(groups([1, "a", 2, 3, "b", 4, "c"], 2, int))
    assert found == [[1, "a", 2], [3, "b", 4], ["c"]]
    assert list(groups([], 2, int)) == [[]]
