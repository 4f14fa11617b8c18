"""The index as it is now: it may be added to while the page is up."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visxp_jax.errors import VisxpError
from visxp_jax.search.exact import Searcher
from visxp_jax.search.finder import Finder, trained_for
from visxp_jax.search.query import encoded
from visxp_jax.search.reading import Example
from visxp_jax.search.store import MANIFEST, Store
from visxp_jax.weights import Trained


class Now(NamedTuple):
    """One state of the index."""

    stamp: str  # no other state has it
    finder: Finder
    searcher: Searcher
    trained: Trained | None  # the model that made it, if that was given


class LiveIndex:
    """Loads an index, and what is new in it when it has changed.

    Attributes:
        path: Of the index.
    """

    def __init__(self, path: Path, workdir: Path | None) -> None:
        """Load it.

        Raises:
            VisxpError: it is empty or damaged, or the model is another.
        """
        self.path = path
        self._given: Trained | None = None
        self._loading, self._encoding = threading.Lock(), threading.Lock()
        stamp, store = self._stamp(), Store(path)  # a change between them is noticed
        if not store.manifest.segments:
            raise VisxpError(
                f"{path} must be an index with clips, got none there; "
                "`visxp search add` makes one."
            )
        if workdir is not None:
            self._given = trained_for(store, workdir, "the page")
        self._now = self._load(stamp, store)

    def _stamp(self) -> str:
        try:
            found = (self.path / MANIFEST).stat()
        except OSError:
            return "gone"
        return f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"

    def _load(self, stamp: str, store: Store, before: Searcher | None = None) -> Now:
        trained = self._given
        # Vectors of two models cannot be compared.
        if trained and trained.about["sha256"] != store.manifest.model_sha256:
            trained = None

        def model(what: str) -> Trained:
            if trained is None:
                raise VisxpError(
                    f"{what} needs the model that made the index: start with --workdir."
                )
            return trained

        searcher = Searcher(store, before)
        return Now(stamp, Finder(searcher, model), searcher, trained)

    def now(self) -> Now:
        """The index as it is, once it is loaded by the first who asks for it.

        As it was before, for others meanwhile, and if what is there now is damaged.
        """
        if self._stamp() != self._now.stamp and self._loading.acquire(blocking=False):
            # Anew: another may have loaded it since.
            stamp = self._stamp()
            try:
                if stamp != self._now.stamp:
                    with suppress(VisxpError):
                        store, before = Store(self.path), self._now.searcher
                        self._now = self._load(stamp, store, before)
            finally:
                self._loading.release()
        return self._now

    def vectors_of(self, trained: Trained, example: Example) -> dict[str, np.ndarray]:
        """Of what is to be searched by; one at a time."""
        with self._encoding:
            return encoded(trained, example)
