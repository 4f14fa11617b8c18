"""Two processes over loopback do the same job as one, and stop together."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np

from tests.test_main import losses

ROOT = Path(__file__).parent.parent
# What every process begins with.
BEGIN = """
    import sys
    from pathlib import Path
    import jax
    jax.config.update("jax_platforms", "cpu")
    address, hosts, host, workdir, data, steps = sys.argv[1:]
    if int(hosts) > 1:
        jax.distributed.initialize(address, int(hosts), int(host))
    assert jax.device_count() == 8
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather
"""
JOB = """
    from tests.small import small_config
    from visxp_jax.main import run
    from visxp_jax.relabel import Relabeller
    from visxp_jax.train.loop import Preempted
    changes = {
        "data.dir": data, "data.reader": "array_record", "run.log_every": 1,
        # Adam blows rounding up where a gradient is truly 0.
        "avc.optim.name": "sgd", "selflabel.optim.name": "sgd",
        "avc.steps": int(steps),
    }
    make = Relabeller.__call__

    def kept(self, state):
        state, metrics = make(self, state)
        labels = process_allgather(state.method_state["labels"], tiled=True)
        np.save(f"{workdir}/labels-{host}-{int(state.step)}.npy", labels)
        return state, metrics

    Relabeller.__call__ = kept
    try:
        run(small_config(**changes), Path(workdir), tensorboard=False)
    except Preempted as stopped:
        print(stopped)
"""
# Labels of the same vectors, in every way they are made. One group is twice the others,
# so that no cluster has its size from the start.
LABELS = """
    from tests.clusters import CLUSTERS, HEADS, clip_vectors, identity, small_method
    from visxp_jax.methods.base import Encoding
    from visxp_jax.models.bind import Linear
    from visxp_jax.sharding import make_mesh, rows
    rng, width = np.random.default_rng(0), CLUSTERS * HEADS
    group = np.minimum(np.arange(320) % (CLUSTERS + 1), CLUSTERS - 1)
    centre = np.eye(width)[group] + np.eye(width)[CLUSTERS + group]
    video, audio = centre + 0.3 * rng.standard_normal((2, 320, width))
    clips = clip_vectors(np.arange(320), video=video, audio=audio, fused=video + audio)
    names = ("clusters", "clusters_video", "clusters_audio", "xdc_video", "xdc_audio")
    params = {name: identity(width) for name in names}
    params["shhc_clusters"] = Linear(np.eye(width, 3), np.zeros(3))
    params["hierarchy_0"] = 0.1 + 0.5 * np.eye(CLUSTERS, 3)
    cases = {
        "fused": {},
        "pooled": {"labels_from": "pooled", "sizes": "gaussian"},
        "aligned": {"labels_from": "pooled", "first_labels": "heads", "align": True},
        "shhc": {"stage": "shhc", "clusters": CLUSTERS, "dimensions": 3},
        "xdc": {"stage": "xdc"},
    }
    found = {}
    for name, changes in cases.items():
        method = small_method(**changes)
        for number in (0, 1):
            labels = method.init_state(320, jax.random.key(0))["labels"]
            state = {"labels": jax.device_put(labels, rows(make_mesh()))}
            passes = Encoding(lambda key: clips, lambda: None)
            made = method.relabel.make(params, state, passes, jax.random.key(1), number)
            labels = process_allgather(made.method_state["labels"], tiled=True)
            found[f"{name}-{number}"] = labels
    np.savez(f"{workdir}/labels-{host}.npz", **found)
"""


def start(
    hosts: int,
    host: int,
    port: int,
    workdir: Path,
    data: Path,
    *,
    steps: int = 4,
    code: str = JOB,
):
    workdir.mkdir(exist_ok=True)
    flags = f"--xla_force_host_platform_device_count={8 // hosts}"
    return subprocess.Popen(
        [
            *(sys.executable, "-c", textwrap.dedent(BEGIN + code), f"127.0.0.1:{port}"),
            *(str(hosts), str(host), str(workdir), str(data), str(steps)),
        ],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_hosts_give_the_losses_labels_and_weights_of_one(prepared, tmp_path):
    port = free_port()
    data = prepared["array_record"]
    one, two = tmp_path / "one", tmp_path / "two"
    jobs = [start(2, host, port, two, data) for host in (0, 1)]
    try:
        for job in jobs:
            _, errors = job.communicate(timeout=280)
            assert job.returncode == 0, errors
    finally:
        for job in jobs:
            job.kill()
    job = start(1, 0, port, one, data)
    _, errors = job.communicate(timeout=280)
    assert job.returncode == 0, errors
    expected, found = losses(one), losses(two)
    assert expected.keys() == found.keys()
    for step, row in expected.items():
        for name, value in row.items():
            if name in ("relabel/sweeps", "relabel/column_error"):
                continue  # rounding decides where below the tolerance a solution stops
            # One clip of 128 on a border may fall to either side.
            atol = 0.02 if name.startswith("relabel/") else 1e-4
            np.testing.assert_allclose(
                found[step][name], value, rtol=2e-3, atol=atol, err_msg=name
            )
    for step in (4, 6):  # twice in the stage
        labels = [
            np.load(folder / f"labels-{host}-{step}.npy")
            for folder, host in ((one, 0), (two, 0), (two, 1))
        ]
        assert labels[0].max() == 3
        np.testing.assert_array_equal(labels[1], labels[2])
        # Weights differ by rounding after the steps before.
        assert np.mean(labels[0] == labels[1]) >= 0.99
    with np.load(one / "model.npz") as a, np.load(two / "model.npz") as b:
        for name in a.files:
            np.testing.assert_allclose(a[name], b[name], rtol=2e-3, atol=1e-4)


def test_two_hosts_make_the_same_labels_of_the_same_vectors_as_one(tmp_path):
    port = free_port()
    one, two = tmp_path / "one", tmp_path / "two"
    jobs = [start(2, host, port, two, tmp_path, code=LABELS) for host in (0, 1)]
    jobs.append(start(1, 0, port, one, tmp_path, code=LABELS))
    try:
        for job in jobs:
            _, errors = job.communicate(timeout=280)
            assert job.returncode == 0, errors
    finally:
        for job in jobs:
            job.kill()
    files = [one / "labels-0.npz", two / "labels-0.npz", two / "labels-1.npz"]
    expected, *found = [dict(np.load(file)) for file in files]
    assert len(expected) == 10
    for name, labels in expected.items():
        assert labels.min() == 0, name
        assert labels.max() == 3, name
        for other in found:
            np.testing.assert_array_equal(other[name], labels, err_msg=name)


def test_signal_to_one_host_stops_both_at_the_same_step(prepared, tmp_path):
    port, data = free_port(), prepared["array_record"]
    jobs = [start(2, host, port, tmp_path, data, steps=50_000) for host in (0, 1)]
    try:
        until = time.monotonic() + 200
        while len(losses(tmp_path)) < 3 and time.monotonic() < until:
            assert all(job.poll() is None for job in jobs)
            time.sleep(0.5)
        jobs[1].send_signal(signal.SIGTERM)
        said = []
        for job in jobs:
            out, errors = job.communicate(timeout=100)
            assert job.returncode == 0, errors
            said.append(out.splitlines()[-1])
    finally:
        for job in jobs:
            job.kill()
    assert said[0] == said[1]
    step = said[0].removeprefix("stopped and saved at step ")
    assert (tmp_path / "checkpoints" / step).is_dir()
