"""Audio-visual self-supervised learning in JAX: from videos to features."""

__version__ = "0.1.0"
