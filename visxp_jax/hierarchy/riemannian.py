"""Adam on the Poincare ball, as an optax transformation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from visxp_jax.geometry import poincare


class RiemannianAdamState(NamedTuple):
    """Moments at the present points."""

    count: jax.Array  # int32 []
    mean: Any  # tangent vectors, like the points
    square: Any  # of their length, one for each point, [..., 1]


def riemannian_adam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    c: float = 1.0,
) -> optax.GradientTransformation:
    """Adam whose steps follow geodesics and whose momentum is carried along them.

    All parameters must be points [..., d] of the ball; for some of several, see
    `optax.partition`. Updates are differences of points, so that
    `optax.apply_updates` ends where the geodesic does.

    Args:
        learning_rate: Or a schedule of the number of steps done.
        b1: Decay of the mean.
        b2: Decay of the mean square.
        eps: Added to its root.
        c: Curvature is -c.

    Source: Becigneul and Ganea, Riemannian adaptive optimization methods, 2019, with
    each point as one factor of the product. Differs from the form in HypHC and geoopt
    in that bias correction counts every step once.
    """

    def init(params: Any) -> RiemannianAdamState:
        return RiemannianAdamState(
            jnp.zeros([], jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(lambda x: jnp.zeros_like(x[..., :1]), params),
        )

    def update(
        updates: Any, state: Any, params: Any = None
    ) -> tuple[Any, RiemannianAdamState]:
        if params is None:
            raise ValueError("riemannian_adam needs the parameters in update(...).")
        count = state.count + 1
        rate: Any = learning_rate
        if callable(learning_rate):
            rate = learning_rate(state.count)

        def move(
            x: jax.Array, grad: jax.Array, mean: jax.Array, square: jax.Array
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            factor = poincare.conformal_factor(x, c=c)
            mean = b1 * mean + (1 - b1) * grad / factor**2
            # The Riemannian length of the Riemannian gradient.
            length = jnp.sum(grad**2, axis=-1, keepdims=True) / factor**2
            square = b2 * square + (1 - b2) * length
            unbiased = jnp.sqrt(square / (1 - b2**count)) + eps
            step = -rate * mean / (1 - b1**count) / unbiased
            end = poincare.exp(x, step, c=c)
            return end - x, poincare.transport(x, end, mean, c=c), square

        moved = jax.tree.map(move, params, updates, state.mean, state.square)
        change, mean, square = (
            jax.tree.map(lambda _, parts, i=i: parts[i], params, moved)
            for i in range(3)
        )
        return change, RiemannianAdamState(count, mean, square)

    return optax.GradientTransformation(init, update)
