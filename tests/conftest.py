"""The strict session: eight CPU devices, and no silent promotion of ranks or dtypes."""

import ctypes
import os
from importlib.metadata import version
from pathlib import Path

TESTS = Path(__file__).parent

# Before the first import of jax anywhere, which reads them once; children inherit them.
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the time of these tests is compilation. Without optimisation it takes a third,
# and from the cache, which workers and children share, a third to a seventh.
flags = [
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
]
# The older code for fusions compiles in a third of the time; newer versions have it no
# more, and XLA ends a process that gives it a flag it does not know.
if version("jaxlib").startswith("0.10."):
    flags.append("--xla_cpu_use_fusion_emitters=false")
# What is in XLA_FLAGS already comes last and so wins.
os.environ["XLA_FLAGS"] = " ".join([*flags, os.environ.get("XLA_FLAGS", "")])
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(TESTS.parent / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402
import pytest  # noqa: E402

# Only code of our own: optax itself raises a float to an int32 step counter.
STRICT_DTYPES = {"audio", "geometry", "losses", "models"}

# Files of whole runs. They go first: a worker that begins one last ends alone.
LONG = {"test_main.py", "test_relabel.py", "test_two_hosts.py"}

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def _strict_dtypes(request):
    if request.path.relative_to(TESTS).parts[0] not in STRICT_DTYPES:
        yield
        return
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_module():
    """A compiled program takes 1.5 MB: those of all modules together took 5 GB."""
    yield
    jax.clear_caches()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps it else
        trim(0)


@pytest.fixture(scope="session")
def demo_videos(tmp_path_factory) -> Path:
    """A folder of 24 demo videos."""
    from data_prep.demo_videos import write_demo_videos

    folder = tmp_path_factory.mktemp("videos")
    write_demo_videos(folder, videos=24, progress=False)
    return folder


@pytest.fixture(scope="session")
def prepared(demo_videos, tmp_path_factory) -> dict[str, Path]:
    """The demo videos, prepared in both formats: name of the format -> folder."""
    from data_prep.prepare import prepare

    folders = {}
    for file_format in ("tfrecord", "array_record"):
        folders[file_format] = tmp_path_factory.mktemp(file_format) / "data"
        prepare(
            demo_videos,
            folders[file_format],
            spectrogram="mel",
            size_px=64,
            file_format=file_format,
            progress=False,
        )
    return folders
