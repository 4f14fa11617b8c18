"""What the processes of `test_pool` run; spawned ones import it by name."""

import errno
import os
import signal
import time

import numpy as np


def work(task, beat):
    kind, value = task
    if kind == "double":
        beat()
        return 2 * value
    if kind == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit":
        os._exit(3)
    if kind == "hang":
        time.sleep(60)
    if kind == "slow":
        for _ in range(6):
            time.sleep(0.3)
            beat()
        return value
    if kind == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "x")
    if kind == "greedy":
        return np.ones(value, np.uint8)
    if kind == "limits":
        import resource

        return resource.getrlimit(resource.RLIMIT_AS)
    raise KeyError(value)
