"""The two towers, their fusion, and the heads; the linen side of `bind`."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from visxp_jax.models.tower import ACTIVATIONS

# Of VGGSound frames, from the production system; in units of 1 (0..255 / 255).
FRAME_MEAN = (0.3961, 0.3502, 0.3224)
FRAME_STD = (0.2298, 0.2237, 0.2197)


class Head(NamedTuple):
    """A linear layer for a loss."""

    outputs: int
    on: str = "fused"  # or 'video' or 'audio': the vector that it takes


class Points(NamedTuple):
    """Trained points of a loss, which take no vector."""

    number: int
    dimensions: int


class AudioVisualNet(nn.Module):
    """Video tower, audio tower, one fusion layer, and a linear layer per head.

    Attributes:
        video_model: [b, h, w, 3] -> [b, d].
        audio_model: [b, m, f, 1] -> [b, d].
        fusion_dim: Width of the layer on the concatenated vectors (video first).
        activation: After the fusion layer.
        heads: By name.
    """

    video_model: nn.Module
    audio_model: nn.Module
    fusion_dim: int
    activation: str
    heads: Mapping[str, Head | Points]

    def setup(self) -> None:  # noqa: D102
        self.lin1 = nn.Dense(self.fusion_dim)
        self.head_layers = {
            name: nn.Dense(head.outputs)
            for name, head in self.heads.items()
            if isinstance(head, Head)
        }
        for name, shape in self.heads.items():
            if isinstance(shape, Points):
                self.param(f"points_{name}", nn.initializers.normal(0.1), tuple(shape))

    def embed(
        self, frame: jax.Array, log_mel: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Frames uint8 [b, h, w, 3] and log-mels [b, m, f] -> ([b, d], [b, d])."""
        mean = jnp.asarray(FRAME_MEAN, jnp.float32)[None, None, None]
        std = jnp.asarray(FRAME_STD, jnp.float32)[None, None, None]
        image = (frame.astype(jnp.float32) / 255.0 - mean) / std
        return self.embed_normalised(image, log_mel, train=train)

    def embed_normalised(
        self, image: jax.Array, log_mel: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """The same for images already normalised, float32 [b, h, w, 3]."""
        sound = log_mel.astype(jnp.float32)[..., None]
        return (
            self.video_model(image, train=train),
            self.audio_model(sound, train=train),
        )

    def fuse(self, video: jax.Array, audio: jax.Array) -> jax.Array:
        """[b, d], [b, d] -> [b, fusion_dim]."""
        both = jnp.concatenate([video, audio], axis=-1)
        return ACTIVATIONS[self.activation](self.lin1(both))

    def head(self, name: str, vector: jax.Array) -> jax.Array:
        """[b, d] of the vector that the head is on -> [b, its outputs], float32."""
        return self.head_layers[name](vector)

    def __call__(self, frame: jax.Array, log_mel: jax.Array) -> dict[str, jax.Array]:
        """All heads on one batch; `init` goes through here so that all exist."""
        video, audio = self.embed(frame, log_mel, train=False)
        vectors = {"video": video, "audio": audio, "fused": self.fuse(video, audio)}
        return {
            name: self.head(name, vectors[head.on])
            for name, head in self.heads.items()
            if isinstance(head, Head)
        }
