"""Two processes over loopback do the same job as one."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np

from tests.test_main import losses

ROOT = Path(__file__).parent.parent
JOB = """
    import sys
    from pathlib import Path
    import jax
    jax.config.update("jax_platforms", "cpu")
    address, hosts, host, workdir, data = sys.argv[1:]
    if int(hosts) > 1:
        jax.distributed.initialize(address, int(hosts), int(host))
    from tests.small import small_config
    from visxp_jax.main import run
    assert jax.device_count() == 8
    changes = {
        "data.dir": data, "data.reader": "array_record", "run.log_every": 1,
        # Adam blows rounding up where a gradient is truly 0.
        "avc.optim.name": "sgd", "selflabel.optim.name": "sgd",
    }
    run(small_config(**changes), Path(workdir), tensorboard=False)
"""


def start(hosts: int, host: int, port: int, workdir: Path, data: Path):
    workdir.mkdir(exist_ok=True)
    flags = f"--xla_force_host_platform_device_count={8 // hosts}"
    return subprocess.Popen(
        [
            *(sys.executable, "-c", textwrap.dedent(JOB), f"127.0.0.1:{port}"),
            *(str(hosts), str(host), str(workdir), str(data)),
        ],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_hosts_give_the_losses_and_weights_of_one(prepared, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
            np.testing.assert_allclose(
                found[step][name], value, rtol=2e-3, atol=1e-4, err_msg=name
            )
    with np.load(one / "model.npz") as a, np.load(two / "model.npz") as b:
        for name in a.files:
            np.testing.assert_allclose(a[name], b[name], rtol=2e-3, atol=1e-4)
