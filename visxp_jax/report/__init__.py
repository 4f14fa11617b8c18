"""The report of a run: one self-contained page to look at and listen to."""

from visxp_jax.report.page import (
    Clip,
    Cluster,
    Curve,
    Figure,
    HealthRow,
    Neighbours,
    Report,
    render,
    wav_bytes,
)

__all__ = [
    "Clip",
    "Cluster",
    "Curve",
    "Figure",
    "HealthRow",
    "Neighbours",
    "Report",
    "render",
    "wav_bytes",
]
