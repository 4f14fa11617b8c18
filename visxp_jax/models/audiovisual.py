"""The two towers, their fusion, and the heads; the linen side of `bind`."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from visxp_jax.models.tower import ACTIVATIONS


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
        frame_norm: Mean and standard deviation of R, G and B in [0, 1].
        sound_norm: Of log-mels as a preset normalises them.
    """

    video_model: nn.Module
    audio_model: nn.Module
    fusion_dim: int
    activation: str
    heads: Mapping[str, Head | Points]
    frame_norm: tuple[Sequence[float], Sequence[float]]
    sound_norm: tuple[float, float]

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
        mean, std = (
            jnp.asarray(n, jnp.float32)[None, None, None] for n in self.frame_norm
        )
        image = (frame.astype(jnp.float32) / 255.0 - mean) / std
        sound = (log_mel.astype(jnp.float32) - self.sound_norm[0]) / self.sound_norm[1]
        return self.embed_normalised(image, sound, train=train)

    def embed_normalised(
        self, image: jax.Array, sound: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """The same for what is normalised: float32 [b, h, w, 3] and [b, m, f]."""
        return (
            self.video_model(image, train=train),
            self.audio_model(sound[..., None], train=train),
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
