"""Losses and label assignments as pure functions; importing this loads jax alone."""

from visxp_jax.losses.balance import assign_exactly, gaussian_cluster_mass
from visxp_jax.losses.correspondence import ShiftedPairs, avc_bce, shifted_pairs
from visxp_jax.losses.decorrelation import decorrelation
from visxp_jax.losses.selflabel import pseudo_label_cross_entropy
from visxp_jax.losses.sinkhorn import (
    Equipartition,
    assign,
    equipartition,
    equipartition_in_blocks,
    transport_plan,
)

__all__ = [
    "Equipartition",
    "ShiftedPairs",
    "assign",
    "assign_exactly",
    "avc_bce",
    "decorrelation",
    "equipartition",
    "equipartition_in_blocks",
    "gaussian_cluster_mass",
    "pseudo_label_cross_entropy",
    "shifted_pairs",
    "transport_plan",
]
