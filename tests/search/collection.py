"""A small collection as it comes to be: videos, a model, features, an index."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from tests.small import small_config
from tests.test_weights import random_weights
from tests.videos import write_video
from visxp_jax import extract
from visxp_jax.config import TrainConfig
from visxp_jax.methods import all_heads
from visxp_jax.search import __main__ as search
from visxp_jax.weights import save_weights


def colour(number: int, second: int) -> tuple[int, int, int]:
    """Of the pictures of a second of a video."""
    return 50 * number, 255 - 40 * number, 30 * second


def make_collection(
    path: Path, names: Sequence[str], config: TrainConfig | None = None
) -> None:
    """Fill a folder with `run`, `features`, `index`, and videos of three seconds.

    Args:
        path: The folder.
        names: Of the videos; the last one is without sound.
        config: Of the model.
    """
    config = config or small_config()
    params, state = random_weights(config)
    state = jax.tree.map(lambda x: np.abs(x) + 0.5, state)
    (path / "run").mkdir()
    what = (config.encoder, all_heads(config), params, state, {})
    save_weights(path / "run", *what, config=config)
    for i, name in enumerate(names):
        write_video(
            path / name,
            picture=lambda t, h, w, i=i: np.full(
                (h, w, 3), colour(i, int(t)), np.uint8
            ),
            sound=None if i == len(names) - 1 else "tones",
        )
    out = path / "features"
    videos = [str(path / name) for name in names]
    assert extract.main([f"--workdir={path / 'run'}", f"--out={out}", *videos]) == 0
    index = str(path / "index")
    assert search.main(["add", index, str(out), "--collection=all"]) == 0
