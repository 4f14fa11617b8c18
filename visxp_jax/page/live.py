"""The index as it is now: it may be added to while the page is up."""

import threading
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


class LiveIndex:
    """Loads an index, and what is new in it when it has changed.

    Attributes:
        path: Of the index.
        trained: The model that made it; None if none was given.
    """

    def __init__(self, path: Path, workdir: Path | None) -> None:
        """Load it.

        Raises:
            VisxpError: it is empty or damaged, or the model is another.
        """
        self.path = path
        self.trained: Trained | None = None
        self._loading, self._encoding = threading.Lock(), threading.Lock()
        stamp, store = self._stamp(), Store(path)  # a change between them is noticed
        if not store.manifest.segments:
            raise VisxpError(
                f"{path} must be an index with clips, got none there; "
                "`visxp search add` makes one."
            )
        if workdir is not None:
            self.trained = trained_for(store, workdir, "the page")
        self._now = self._load(stamp, store)

    def _stamp(self) -> str:
        try:
            found = (self.path / MANIFEST).stat()
        except OSError:
            return "gone"
        return f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"

    def _load(self, stamp: str, store: Store, before: Searcher | None = None) -> Now:
        def model(what: str) -> Trained:
            if self.trained is None:
                raise VisxpError(
                    f"{what} needs the model that made the index: start with --workdir."
                )
            return self.trained

        if self.trained and self.trained.about["sha256"] != store.manifest.model_sha256:
            self.trained = None  # vectors of two models cannot be compared
        searcher = Searcher(store, before)
        return Now(stamp, Finder(searcher, model), searcher)

    def now(self) -> Now:
        """The index as it is, once it is loaded by the first who asks for it.

        As it was before, for others meanwhile, and if what is there now is damaged.
        """
        stamp = self._stamp()
        if stamp != self._now.stamp and self._loading.acquire(blocking=False):
            try:
                store = Store(self.path)
                self._now = self._load(stamp, store, self._now.searcher)
            except VisxpError:
                pass
            finally:
                self._loading.release()
        return self._now

    def vectors_of(self, example: Example) -> dict[str, np.ndarray]:
        """Of what is to be searched by.

        Raises:
            VisxpError: there is no model.
        """
        trained = self.trained
        if trained is None:
            raise VisxpError("a file from elsewhere needs the model.")
        with self._encoding:
            return encoded(trained, example)
