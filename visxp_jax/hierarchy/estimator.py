"""Hierarchies in the manner of scikit-learn."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from visxp_jax.hierarchy.construction import build
from visxp_jax.hierarchy.decode import on_circle
from visxp_jax.hierarchy.export import newick, tree_json
from visxp_jax.hierarchy.metrics import heights
from visxp_jax.hierarchy.tree import cut, linkage_matrix


class HyperbolicHierarchy(ClusterMixin, BaseEstimator):
    """A binary tree over rows, and their places in the Poincare disk.

    Rows are used as they are; similarity is (1 + cosine) / 2, so scale or centre
    columns first if they ask for it. See `build` for how the tree is made, time and
    memory.

    Args:
        n_clusters: Of `labels_`; if None, where the height of merges grows most, among
            2 to sqrt(n) clusters.
        random_state: An int, a generator or None; equal ones give equal trees.
        n_jobs: Processes, for more than 2,000 rows: None for 1, -1 for all cores.
        verbose: Whether to show progress.

    Attributes:
        linkage_: float64 [n - 1, 4], as from `scipy.cluster.hierarchy.linkage`; heights
            are the mean dissimilarity (1 - cosine) / 2 of the rows a merge brings
            together, raised to those below where need be.
        labels_: int64 [n], flat clusters.
        embedding_: float64 [n, 2], places for the leaves on a circle in the Poincare
            disk, from the order of merges alone, see `on_circle`: `decode` gives the
            tree of `linkage_` again. To learn points from similarities, see `embed`.
        n_clusters_: Number of flat clusters.
    """

    def __init__(
        self,
        n_clusters: int | None = None,
        *,
        random_state: int | np.random.Generator | None = 0,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: Any, y: None = None) -> Self:  # noqa: ARG002, N803
        """Make the tree.

        Args:
            X: [n, d], n >= 2, finite, of rows that are not 0.
            y: Not used.

        Raises:
            ValueError: `X` is not so, or there cannot be so many clusters.
        """
        x = np.asarray(validate_data(self, X, dtype=np.float64, ensure_min_samples=2))
        wanted = self.n_clusters
        if wanted is not None and not (
            isinstance(wanted, Integral)
            and not isinstance(wanted, bool)
            and 1 <= wanted <= len(x)
        ):
            raise ValueError(
                f"n_clusters must be None or a whole number from 1 to the {len(x)} "
                f"rows, got {wanted!r}."
            )
        merges = build(
            x,
            random_state=self.random_state,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        self.linkage_ = linkage_matrix(merges, heights(merges, x))
        merges = self._merges()
        if wanted is None:
            most = max(2, round(len(x) ** 0.5))
            rise = np.diff(self.linkage_[-most:, 2])  # the last: from 2 clusters to 1
            self.n_clusters_ = 2 + int(np.argmax(rise[::-1])) if rise.size else 2
        else:
            self.n_clusters_ = int(wanted)
        self.labels_ = cut(merges, self.n_clusters_)
        angles, depth = on_circle(merges), np.arcsinh(len(x) / (2 * np.pi))
        self.embedding_ = np.tanh(depth / 2) * np.stack(
            [np.cos(angles), np.sin(angles)], axis=1
        )
        return self

    def _merges(self) -> np.ndarray:
        check_is_fitted(self)
        return self.linkage_[:, :2].astype(np.int64)

    def newick(self, names: Sequence[str] | None = None) -> str:
        """The tree in Newick's notation, with names of leaves."""
        return newick(self._merges(), self.linkage_[:, 2], names)

    def to_json(self, names: Sequence[str] | None = None) -> str:
        """The tree as JSON, see `tree_json`, with names of leaves."""
        return tree_json(self._merges(), self.linkage_[:, 2], names)
