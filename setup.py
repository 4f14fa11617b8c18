"""Metadata, version ranges and extras; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / "visxp_jax" / "__init__.py").read_text(encoding="utf-8")
README = HERE / "README.md"

# Lower bounds: the versions of requirements/lock-3.11.txt, the oldest set that is
# tested. Upper bounds only where a release is known to break us: none so far.
CORE = [
    "jax>=0.10",
    "flax>=0.12.8",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "tensorflow-datasets>=4.9.10",
    "librosa>=0.11",
    "ml-collections>=1.1",
    "ml_dtypes>=0.5",
    "einops>=0.8.2",
    "clu>=0.0.12",
    "tensorboard>=2.21",  # clu's metric writers import it without declaring it
    "absl-py>=2.5",
    "array_record>=0.8.6",
    "av>=18.1",
    "grain>=0.2.18",
    "joblib>=1.6",
    "numpy>=2.4",
    "pillow>=13",
    "pyarrow>=26",
    "pyyaml>=6",
    "safetensors>=0.8",
    "scikit-learn>=1.9",
    "scipy>=1.17",
    "tqdm>=4.70",
]
TENSORFLOW = [
    # The CPU build is 0.5 GB smaller and exists for this platform alone.
    "tensorflow-cpu>=2.21; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "tensorflow>=2.21; sys_platform != 'linux' or platform_machine != 'x86_64'",
]
SEARCH = ["usearch>=2.26.6"]  # approximate, for millions of clips
SHOTS = ["scenedetect-headless>=0.7.2"]
DEV = [
    "ott-jax>=0.6",  # the oracle of the equipartition tests
    "pre-commit>=4.7",
    "pyright[nodejs]>=1.1.414",
    "pytest>=9.2",
    "pytest-xdist>=3.8",
    "python_speech_features>=0.6",  # the oracle of the spectrogram tests
    "ruff>=0.17.5",
]

setup(
    name="visxp-jax",
    version=re.search(r'^__version__ = "(.+)"$', INIT, re.MULTILINE).group(1),
    description="Audio-visual self-supervised learning in JAX, from videos to a report",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(
        include=["visxp_jax", "visxp_jax.*", "data_prep", "data_prep.*"]
    ),
    package_data={
        "visxp_jax": ["py.typed"],
        "visxp_jax.page": ["*.html", "*.css", "*.js"],
        "visxp_jax.report": ["*.html", "*.css", "*.js"],
        "data_prep": ["py.typed"],
    },
    entry_points={"console_scripts": ["visxp = visxp_jax.cli:main"]},
    install_requires=CORE,
    extras_require={
        "tf": TENSORFLOW,
        "search": SEARCH,
        "shots": SHOTS,
        "dev": TENSORFLOW + SEARCH + SHOTS + DEV,
        "cuda": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
