"""Audio-visual self-supervised learning in JAX: encoders, losses, training, features."""

__version__ = "0.1.0"
