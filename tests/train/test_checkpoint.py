"""A checkpoint is whole or not there, and damage is noticed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.small import small_config, small_stage
from visxp_jax.errors import VisxpError
from visxp_jax.sharding import make_mesh, padded_rows
from visxp_jax.train import checkpoint
from visxp_jax.train.checkpoint import Checkpoints, checksums

ROOT = Path(__file__).parent.parent.parent


def some_state(devices: int = 8):
    mesh = make_mesh(jax.devices()[:devices])
    clips = padded_rows(1003, mesh)
    return small_stage(small_config(), "selflabel", mesh, clips=clips)[2]


# 6 devices share 1,536 rows, the others 1,024.
@pytest.mark.parametrize(("before", "after"), [(8, 6), (6, 1)])
def test_checkpoint_restores_on_another_number_of_devices(before, after, tmp_path):
    state = some_state(before)
    labels = state.method_state["labels"]
    drawn = jax.random.randint(jax.random.key(0), labels[:1003].shape, 0, 4)
    labels = jax.device_put(labels.at[:1003].set(drawn), labels.sharding)
    state = state._replace(method_state={"labels": labels})
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(5, state, {"stage": "selflabel", "seconds": 5})
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=2)
    assert again.latest() == 5
    assert again.about(5)["seconds"] == 5
    like = some_state(after)
    restored = again.restore(5, like)
    again.close()
    found = restored.method_state["labels"]
    assert found.sharding == like.method_state["labels"].sharding
    np.testing.assert_array_equal(found[:1003], labels[:1003])
    np.testing.assert_array_equal(found[1003:], -1)
    rest = restored._replace(method_state=state.method_state)
    jax.tree.map(np.testing.assert_array_equal, state, rest)


def test_labels_that_several_hosts_saved_are_restored_by_one(tmp_path, monkeypatch):
    """Hosts that hold only some of the rows each leave their checksum out."""

    def of_hosts(state):
        return {k: v for k, v in checksums(state).items() if "labels" not in k}

    state = some_state(8)
    checkpoints = Checkpoints(tmp_path, keep=2)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "checksums", of_hosts)
        checkpoints.save(5, state, {})
    restored = checkpoints.restore(5, some_state(1))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, state, restored)


def test_checkpoint_with_flipped_bytes_is_refused_by_name(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(5, some_state(1), {})
    checkpoints.close()
    files = [p for p in tmp_path.rglob("*") if p.is_file() and "/d/" in str(p)]
    largest = max(files, key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    for i in range(len(data) // 4, len(data), max(len(data) // 64, 1)):
        data[i] ^= 0xFF
    largest.write_bytes(bytes(data))
    again = Checkpoints(tmp_path, keep=2)
    with pytest.raises(VisxpError, match=r"(damaged|cannot be read).*remove that"):
        again.restore(5, some_state(1))
    again.close()


def test_kill_9_during_a_save_loses_no_earlier_step(tmp_path):
    script = f"""
        import sys; sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from tests.train.test_checkpoint import some_state
        from visxp_jax.train.checkpoint import Checkpoints
        state = some_state(1)
        checkpoints = Checkpoints(Path({str(tmp_path)!r}), keep=3)
        checkpoints.save(1, state, {{}})
        checkpoints._manager.wait_until_finished()
        print("saved", flush=True)
        for step in range(2, 1000):
            checkpoints.save(step, state, {{}})  # waits for the one before
            print(step - 1, flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip() == b"saved"
    while child.stdout.readline().strip() != b"3":
        assert child.poll() is None
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    finished = int([b"3", *child.stdout.read().split()][-1])
    child.stdout.close()
    checkpoints = Checkpoints(tmp_path, keep=3)
    latest = checkpoints.latest()
    assert latest is not None
    assert latest >= finished
    checkpoints.restore(latest, some_state(1))
    checkpoints.close()


def test_checkpoint_without_a_checksum_of_weights_is_refused(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "checksums", lambda state: {})
        checkpoints.save(5, some_state(1), {})
    with pytest.raises(VisxpError, match="is damaged in"):
        checkpoints.restore(5, some_state(1))
    checkpoints.close()
