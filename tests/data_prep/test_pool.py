import subprocess
import sys

import pytest

from data_prep.pool import (
    MEMORY_LIMIT_BYTES,
    Failure,
    IsolatedProcess,
    run_isolated,
)
from tests.data_prep.pool_tasks import work


def run(tasks, *, workers=2, timeout_s=30.0, on_beat=lambda: None):
    return dict(
        run_isolated(work, tasks, workers=workers, timeout_s=timeout_s, on_beat=on_beat)
    )


def test_results_come_back_and_beats_are_counted():
    beats = []
    tasks = [("double", i) for i in range(7)]
    found = run(tasks, on_beat=lambda: beats.append(1))
    assert found == {task: 2 * task[1] for task in tasks}
    assert len(beats) == 7


def test_no_tasks_no_processes():
    assert run([]) == {}


def test_crash_costs_one_task_and_the_rest_goes_on():
    tasks = [("double", 1), ("die", 0), ("exit", 0), ("double", 2), ("double", 3)]
    found = run(tasks)
    assert found[("die", 0)] == Failure("crashed (SIGSEGV)", None)
    assert found[("exit", 0)] == Failure("crashed (exit code 3)", None)
    assert [found[("double", i)] for i in (1, 2, 3)] == [2, 4, 6]


def test_more_memory_than_allowed_costs_one_task():
    greedy = ("greedy", MEMORY_LIMIT_BYTES)
    found = run([greedy, ("double", 1)], workers=1)
    assert "Unable to allocate" in found[greedy].reason
    assert found[("double", 1)] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_limit_of_the_shell_is_kept_where_it_is_lower():
    script = (
        "import resource\n"
        "from tests.data_prep.test_pool import run\n"
        "if __name__ == '__main__':\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
        "    print(run([('limits', 0)], workers=1)[('limits', 0)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{(2**32, 2**32)}\n"


def test_hang_is_killed_but_slow_progress_is_not():
    found = run([("hang", 0), ("slow", 5), ("double", 1)], timeout_s=1.2)
    assert found[("hang", 0)].reason == "timeout (no clip for 1.2 s)"
    assert found[("slow", 5)] == 5
    assert found[("double", 1)] == 2


def test_exceptions_come_back_as_failures():
    found = run([("odd", "x"), ("full", 0)], workers=1)
    assert found[("odd", "x")].reason == "KeyError: 'x'"
    assert not isinstance(found[("odd", "x")].error, OSError)
    assert isinstance(found[("full", 0)].error, OSError)
    assert "No space left" in str(found[("full", 0)].error)


def test_one_process_takes_tasks_until_it_is_lost():
    process = IsolatedProcess(work, timeout_s=1.2)
    try:
        assert process.run(("double", 1)) == 2
        first = process._worker
        assert process.run(("double", 2)) == 4
        assert process._worker is first
        assert process.run(("die", 0)) == Failure("crashed (SIGSEGV)", None)
        assert process.run(("double", 3)) == 6
        assert process.run(("hang", 0)).reason == "timeout (no clip for 1.2 s)"
        assert process.run(("double", 4)) == 8
    finally:
        process.close()
