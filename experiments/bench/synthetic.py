"""Made-up clips for the published network: 256 x 256 JPEG, 257 x 99 log-mel."""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from data_prep.builder import Video, read_index, write_shards
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.data.dataset import INDEX, PreparedDataset

SIZE_PX = 256
LOG_MEL_SHAPE = PRESETS["visxp"].shape
CLIPS_PER_VIDEO = 100
_DIFFERENT = 64


class Made(NamedTuple):
    """Pictures and sounds that clips take turns with."""

    pictures: list[bytes]  # JPEG, about 25 KB
    sounds: list[bytes]  # float16


def make() -> Made:
    """Shapes and grain, as in video frames, and noise."""
    rng = np.random.default_rng(0)
    pictures, sounds = [], []
    for _ in range(_DIFFERENT):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 12, 3)).astype(np.uint8))
        image = coarse.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (SIZE_PX, SIZE_PX, 1))
        pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "JPEG", quality=90)
        pictures.append(data.getvalue())
        sounds.append(rng.normal(size=LOG_MEL_SHAPE).astype(np.float16).tobytes())
    return Made(pictures, sounds)


def clips(count: int, made: Made) -> Iterator[dict[str, Any]]:
    """What the first stage of preparation hands to the second."""
    for i in range(count):
        yield {
            "start_s": float(i),
            "end_s": i + 1.0,
            "frame_s": i + 0.48,
            "frame": made.pictures[i % _DIFFERENT],
            "log_mel": made.sounds[i % _DIFFERENT],
            "has_audio": True,
            "silent": False,
            "still": False,
            "partial": False,
        }


def write(out: Path, *, num_clips: int, made: Made, file_format: str) -> Path:
    """Write training shards the way `data_prep.prepare` does; returns their folder."""
    videos = [
        Video(
            name=f"{i}.mp4",
            video_id=i,
            label=-1,
            first_clip_id=i * CLIPS_PER_VIDEO,
            clips=partial(clips, CLIPS_PER_VIDEO, made),
        )
        for i in range(num_clips // CLIPS_PER_VIDEO)
    ]
    return write_shards(
        {"train": videos, "validation": [], "test": []},
        out,
        scratch=out / "scratch",
        log_mel_shape=LOG_MEL_SHAPE,
        size_px=SIZE_PX,
        file_format=file_format,
    )


def dataset(out: Path, *, num_clips: int, file_format: str) -> PreparedDataset:
    """Write shards and their index, and open them for a training reader."""
    builder_dir = write(out, num_clips=num_clips, made=make(), file_format=file_format)
    pq.write_table(read_index(builder_dir), out / INDEX)
    shards = [p for p in builder_dir.iterdir() if p.suffix != ".json"]
    return PreparedDataset(
        dir=out,
        builder_dir=builder_dir,
        videos=out,
        file_format=file_format,
        spectrogram="visxp",
        size_px=SIZE_PX,
        label_names=[],
        manifest_sha256="",
        num_bytes=sum(shard.stat().st_size for shard in shards),
        counts={"train": {"clips": num_clips, "usable": num_clips}},
    )
