"""An audio tower that reads a spectrogram from left to right."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from visxp_jax.models.tower import ConvNorm, block_max, peak


class RecurrentTower(nn.Module):
    """Convolutional front end, then gated recurrent units over time, both ways.

    The front end is the first three blocks of `ConvTower`; it shrinks frequency 16
    times and time 4 times, so that the recurrent network has time steps left to read.
    VisXP's model documents describe its audio network as recurrent; the published one
    is the convolutional `ConvTower`.

    Attributes: as `ConvTower`; the vector has 8 * width entries here too.
    """

    width: int
    double_convolution: bool
    activation: str
    momentum: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[b, m, f, 1] -> float32 [b, 8 * width]."""
        x = x.astype(self.dtype)
        for block in range(3):
            for half in ("", "B") if self.double_convolution else ("",):
                x = ConvNorm(
                    features=self.width * 2**block,
                    strides=(2, 2) if block == 0 and not half else (1, 1),
                    activation=self.activation,
                    momentum=self.momentum,
                    dtype=self.dtype,
                    name=f"conv{block + 1}{half}",
                )(x, train=train)
            x = block_max(x, (2, 2) if block == 0 else (2, 1))
        x = rearrange(x, "b m f c -> b f (m c)")
        x = nn.Dense(8 * self.width, dtype=self.dtype, name="project")(x)
        forward = nn.RNN(nn.GRUCell(4 * self.width, dtype=self.dtype), name="forward")
        backward = nn.RNN(
            nn.GRUCell(4 * self.width, dtype=self.dtype),
            reverse=True,
            keep_order=True,
            name="backward",
        )
        both: list[Any] = [forward(x), backward(x)]
        x = jnp.concatenate(both, axis=-1)
        # An event may be anywhere in the second: the strongest step speaks.
        return peak(x, 1).astype(jnp.float32)
