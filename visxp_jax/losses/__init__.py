"""Losses and label assignments as pure functions; importing this loads jax alone."""

from visxp_jax.losses.balance import (
    assign_exactly,
    disagreement,
    gaussian_cluster_mass,
)
from visxp_jax.losses.balanced_kmeans import balanced_kmeans
from visxp_jax.losses.contrastive import CrossModalNce, cross_modal_nce
from visxp_jax.losses.correspondence import ShiftedPairs, avc_bce, shifted_pairs
from visxp_jax.losses.decorrelation import decorrelation
from visxp_jax.losses.directions import directions
from visxp_jax.losses.hyperbolic import kinship, leaf_logits, leaf_loss
from visxp_jax.losses.kmeans import KMeans, kmeans, unit_length
from visxp_jax.losses.selflabel import pseudo_label_cross_entropy
from visxp_jax.losses.sinkhorn import (
    Equipartition,
    assign,
    assign_in_blocks,
    equipartition,
    equipartition_in_blocks,
    transport_plan,
)

__all__ = [
    "CrossModalNce",
    "Equipartition",
    "KMeans",
    "ShiftedPairs",
    "assign",
    "assign_exactly",
    "assign_in_blocks",
    "avc_bce",
    "balanced_kmeans",
    "cross_modal_nce",
    "decorrelation",
    "directions",
    "disagreement",
    "equipartition",
    "equipartition_in_blocks",
    "gaussian_cluster_mass",
    "kinship",
    "kmeans",
    "leaf_logits",
    "leaf_loss",
    "pseudo_label_cross_entropy",
    "shifted_pairs",
    "transport_plan",
    "unit_length",
]
