"""The convolutional tower that L3-Net and VisXP's AVNet share."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from visxp_jax.errors import VisxpError


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, x times the normal distribution function, as torch computes it.

    `flax.linen.gelu` defaults to an approximation by tanh, and its exact form goes by
    erfc, which keeps more digits below -3 but is two functions in one: on CPU a
    training step of AVNet takes 1.1 to 1.3 times as long with it.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "relu": nn.relu,
}


def peak(x: jax.Array, axis: int) -> jax.Array:
    """Largest value along an axis, found by a tournament of pairs.

    Each comparison passes the gradient to its winner, the first of two equals, as
    torch does. `jnp.max` instead compares every value with the maximum afterwards. XLA
    on CPU may compute a value once for the maximum and again, rounded otherwise, for
    the comparison; then none is equal and the gradient there is 0 / 0, or lost.

    Args:
        x: Any shape.
        axis: What to reduce over, not negative.

    Returns:
        `x` without `axis`.
    """
    while (n := x.shape[axis]) > 1:
        first = jax.lax.slice_in_dim(x, 0, n - 1, 2, axis)
        second = jax.lax.slice_in_dim(x, 1, n, 2, axis)
        winners = jnp.where(first < second, second, first)
        if n % 2:
            unpaired = jax.lax.slice_in_dim(x, n - 1, n, 1, axis)
            winners = jnp.concatenate([winners, unpaired], axis)
        x = winners
    return jnp.squeeze(x, axis)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def block_max(x: jax.Array, window: tuple[int, int]) -> jax.Array:
    """Max over non-overlapping windows; what is left over at right and bottom is cut.

    The same as `flax.linen.max_pool` with stride = window and VALID padding, and its
    gradient goes to the first of equal values, as torch's does. The backward pass of
    the library's is a scalar loop on CPU; here the forward pass notes which entry of
    each window won, and the backward pass is one elementwise selection.

    Args:
        x: [b, h, w, c].
        window: (height, width), at most (h, w).

    Returns:
        [b, h // height, w // width, c]; NaN where the window holds one.
    """
    return _winners(x, window)[0]


def _winners(x: jax.Array, window: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Largest value of each window, and its place there counted by rows, int8."""
    p, q = window
    x = x[:, : x.shape[1] // p * p, : x.shape[2] // q * q]
    x = rearrange(x, "b (h p) (w q) c -> b h p w q c", p=p, q=q)
    best = x[:, :, 0, :, 0]
    place = jnp.zeros(best.shape, jnp.int8)
    for n in range(1, p * q):
        rival = x[:, :, n // q, :, n % q]
        wins = (rival > best) | jnp.isnan(rival)
        best = jnp.where(wins, rival, best)
        place = jnp.where(wins, jnp.int8(n), place)
    return best, place


def _block_max_forward(
    x: jax.Array, window: tuple[int, int]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    best, place = _winners(x, window)
    # An array of no size: only to know the shape of x again.
    return best, (place, x[:0, ..., :0])


def _block_max_backward(
    window: tuple[int, int], kept: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array]:
    place, like = kept
    p, q = window
    here = jnp.arange(p * q, dtype=jnp.int8).reshape(1, 1, p, 1, q, 1)
    spread = jnp.where(
        place[:, :, None, :, None] == here, grad[:, :, None, :, None], 0.0
    ).astype(grad.dtype)
    spread = rearrange(spread, "b h p w q c -> b (h p) (w q) c")
    cut = [n - m for n, m in zip(like.shape[1:3], spread.shape[1:3], strict=True)]
    return (jnp.pad(spread, ((0, 0), (0, cut[0]), (0, cut[1]), (0, 0))),)


block_max.defvjp(_block_max_forward, _block_max_backward)


class ConvNorm(nn.Module):
    """3x3 convolution with bias, BatchNorm, activation."""

    features: int
    strides: tuple[int, int]
    activation: str
    momentum: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[b, h, w, c] -> [b, ceil(h / s), ceil(w / s), features]."""
        # Explicit padding: SAME pads (0, 1) where torch's padding=1 pads (1, 1).
        x = nn.Conv(
            self.features,
            (3, 3),
            strides=self.strides,
            padding=((1, 1), (1, 1)),
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )(x)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=1e-3,
            dtype=self.dtype,
            name="bn",
        )(x)
        return ACTIVATIONS[self.activation](x)


class ConvTower(nn.Module):
    """Four blocks of 3x3 convolutions with 2x2 max-pooling between, then one vector.

    The first convolution has stride 2; widths double from block to block.

    Attributes:
        width: Channels of the first block; the vector has 8 times as many. 64 in the
            papers, 16 in the configurations for two CPU cores.
        double_convolution: Two convolutions per block instead of one.
        activation: 'gelu' (erf form) or 'relu'.
        last_pool: Window of the last max-pool, of which only the first is kept, as in
            the published networks: VisXP pools the top left 14x14 of 16x16 cells when
            given 256 x 256 pixels. None pools everything.
        momentum: BatchNorm's, in Flax's sense: share of the old running value.
        dtype: Of the computation; weights and the result are float32.
    """

    width: int
    double_convolution: bool
    activation: str
    last_pool: tuple[int, int] | None
    momentum: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[b, h, w, c] -> float32 [b, 8 * width]."""
        x = x.astype(self.dtype)
        for block in range(4):
            if block:
                x = block_max(x, (2, 2))
            for half in ("", "B") if self.double_convolution else ("",):
                x = ConvNorm(
                    features=self.width * 2**block,
                    strides=(2, 2) if block == 0 and not half else (1, 1),
                    activation=self.activation,
                    momentum=self.momentum,
                    dtype=self.dtype,
                    name=f"conv{block + 1}{half}",
                )(x, train=train)
        if self.last_pool is not None:
            have, want = x.shape[1:3], self.last_pool
            if have[0] < want[0] or have[1] < want[1]:
                raise VisxpError(
                    f"the last max-pool needs at least {want[0]} x {want[1]} cells, "
                    f"the input leaves {have[0]} x {have[1]}; use a larger input or "
                    "model.pool='all'."
                )
            x = x[:, : want[0], : want[1]]
        return peak(peak(x, 1), 1).astype(jnp.float32)
