"""Random changes of a batch, on device, that should not change what it is of."""

import jax
import jax.numpy as jnp

from visxp_jax.config import DataConfig
from visxp_jax.types import Batch


def augment(key: jax.Array, batch: Batch, config: DataConfig) -> Batch:
    """Mirror, crop and recolour frames; roll, amplify and mask sounds.

    Args:
        key: PRNG key.
        batch: Frames uint8 [b, h, w, 3], log-mels [b, m, f].
        config: crop, flip, colour, brightness, roll, gain,
            mask; 0, False, and 1 for crop,
            leave a thing out.

    Returns:
        The batch with frames still uint8 and log-mels float32.
    """
    frame_key, sound_key = jax.random.split(key)
    return batch._replace(
        frame=_frames(frame_key, batch.frame, config),
        log_mel=_sounds(sound_key, batch.log_mel.astype(jnp.float32), config),
    )


def _frames(key: jax.Array, frame: jax.Array, config: DataConfig) -> jax.Array:
    b = frame.shape[0]
    flip_key, crop_key, colour_key, bright_key = jax.random.split(key, 4)
    if config.flip:
        mirrored = jax.random.bernoulli(flip_key, 0.5, (b, 1, 1, 1))
        frame = jnp.where(mirrored, frame[:, :, ::-1], frame)
    if config.crop < 1:
        frame = _resized_crop(crop_key, frame, config.crop)
    if not (config.colour or config.brightness):
        return frame
    # One small matrix per clip around mid-grey: hue, saturation, contrast at once.
    mix = jax.random.normal(colour_key, (b, 3, 3)) * config.colour
    mix = jnp.eye(3, dtype=jnp.float32)[None] + mix
    span = 255.0 * config.brightness
    change = jax.random.uniform(bright_key, (b, 1, 1, 1), minval=-span, maxval=span)
    centred = frame.astype(jnp.float32) - 127.5
    mixed = jnp.einsum("bhwc,bcd->bhwd", centred, mix) + 127.5 + change
    return jnp.clip(mixed, 0, 255).astype(jnp.uint8)


def _resized_crop(key: jax.Array, frame: jax.Array, smallest: float) -> jax.Array:
    """A random window of at least `smallest` of each side, at the full size."""
    b, h, w, c = frame.shape
    size_key, place_key = jax.random.split(key)
    side = jax.random.uniform(size_key, (b, 2), minval=smallest, maxval=1.0)
    corner = jax.random.uniform(place_key, (b, 2)) * (1.0 - side)
    scale = 1.0 / side
    size = jnp.array([h, w], jnp.float32)[None]

    def stretch(image: jax.Array, scale: jax.Array, move: jax.Array) -> jax.Array:
        return jax.image.scale_and_translate(
            image, (h, w, c), (0, 1), scale, move, "linear", antialias=False
        )

    image = jax.vmap(stretch)(frame.astype(jnp.float32), scale, -corner * scale * size)
    return jnp.clip(image, 0, 255).astype(jnp.uint8)


def _sounds(key: jax.Array, log_mel: jax.Array, config: DataConfig) -> jax.Array:
    b, m, f = log_mel.shape
    roll_key, gain_key, band_key, time_key = jax.random.split(key, 4)
    if config.roll:
        start = jax.random.randint(roll_key, (b,), 0, f)
        log_mel = jax.vmap(lambda x, at: jnp.roll(x, at, axis=1))(log_mel, start)
    if config.gain:
        change = jax.random.uniform(
            gain_key, (b, 1, 1), minval=-config.gain, maxval=config.gain
        )
        log_mel = log_mel + change
    if config.mask:
        bands = _masked(band_key, b, m, config.mask)[:, :, None]
        times = _masked(time_key, b, f, config.mask)[:, None, :]
        log_mel = jnp.where(bands | times, 0.0, log_mel)
    return log_mel


def _masked(key: jax.Array, b: int, size: int, share: float) -> jax.Array:
    """Bool [b, size]: one random stretch per row, up to `share` of the axis long."""
    width_key, start_key = jax.random.split(key)
    width = jax.random.uniform(width_key, (b, 1)) * share * size
    start = jax.random.uniform(start_key, (b, 1)) * (size - width)
    at = jnp.arange(size, dtype=jnp.float32)[None, :]
    return (at >= start) & (at < start + width)
