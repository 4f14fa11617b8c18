"""Questions to an index, within and across sight and sound, and their answers."""

from collections.abc import Callable, Collection
from pathlib import Path

import jax
import numpy as np

from visxp_jax.errors import VisxpError
from visxp_jax.methods.contrastive import has_common_space
from visxp_jax.search.approximate import Approximate
from visxp_jax.search.catalogue import SENSES, Hit
from visxp_jax.search.exact import Searcher, common_scores, cosines, match_scores
from visxp_jax.search.store import Store
from visxp_jax.weights import Trained, load_weights


def trained_for(store: Store, workdir: Path | None, what: str) -> Trained:
    """The model of an index.

    Raises:
        VisxpError: none is given, or it is another.
    """
    if workdir is None:
        raise VisxpError(f"{what} needs the model: give --workdir.")
    trained = load_weights(workdir)
    if trained.about["sha256"] != store.manifest.model_sha256:
        raise VisxpError(
            f"{workdir} must have the weights that made {store.path} (sha256 "
            f"{store.manifest.model_sha256[:12]}), got {trained.about['sha256'][:12]}."
        )
    return trained


# What a score across sight and sound may be, for people.
ACROSS = {
    "cosine": "cosine in the space that sight and sound have in common, not a "
    "probability",
    "probability": "probability that the two belong together, to the model",
}


def across_by(heads: Collection[str]) -> str | None:
    """How a model with these heads scores across sight and sound, of `ACROSS`.

    In the common space where there is one, else pair by pair; None if it cannot.
    """
    if has_common_space(heads):
        return "cosine"
    return "probability" if "avc" in heads else None


def scores_across(trained: Trained, wanted: str) -> Callable[..., jax.Array]:
    """The scores of what is found of one modality by the other, to be kept.

    Raises:
        VisxpError: the model has not learnt any.
    """
    by = across_by(trained.heads)
    if by is None:
        raise VisxpError(
            "the model must be trained by contrast or by correspondence to search "
            "across sight and sound, but has neither the heads 'common_video' and "
            "'common_audio' nor 'avc'."
        )
    make = {"cosine": common_scores, "probability": match_scores}[by]
    return make(trained.model, trained.params, wanted)


class Finder:
    """Finds clips by the vectors of one.

    Attributes:
        searcher: All clips.
        across: What scores across are, of `ACROSS`; None before they were asked for.
    """

    def __init__(
        self, searcher: Searcher | Approximate, model: Callable[[str], Trained]
    ) -> None:
        """Search among these clips.

        Args:
            searcher: All clips.
            model: Gives the model, or raises an error that says what needs it; called
                once it is needed, for search across.
        """
        self.searcher = searcher
        self.across: str | None = None
        self._model = model
        self._across: dict[str, Callable[..., jax.Array]] = {}

    def vectors(self, row: int) -> dict[str, np.ndarray]:
        """What there is of a clip, float32 [d] by 'video' and 'audio'."""
        found = {m: self.searcher.vector(row, m) for m in SENSES.values()}
        return {name: x for name, x in found.items() if x is not None}

    def find(
        self,
        vectors: dict[str, np.ndarray],
        *,
        by: str | None = None,
        find: str | None = None,
        row: int | None = None,
        k: int = 10,
        collections: Collection[str] | None = None,
        once: bool = False,
    ) -> list[Hit]:
        """The clips that are most like one, from the best on.

        Args:
            vectors: Of that one, by 'video' and 'audio'.
            by: 'sight' or 'sound' of it; None for sight if there is any.
            find: 'sight' or 'sound' of others; None for the same.
            row: Its own, if it is in the index: it is most like itself, which is left
                out, as are its copies in other collections.
            k: Number of clips.
            collections: Only in these; None for all.
            once: Only the best clip of each file.

        Raises:
            VisxpError: it has no such modality, or the model lacks what is needed.
        """
        asked = SENSES[by] if by else next(iter(vectors), "")
        if asked not in vectors:
            raise VisxpError(f"there is no {by or 'content'} to search by.")
        wanted = SENSES[find] if find else asked
        scores = cosines if wanted == asked else self._scores(wanted)
        allowed = self.searcher.allowed(collections)
        if row is not None and wanted == asked:
            allowed &= ~self.searcher.copies(row)

        def best(number: int) -> list[Hit]:
            (hits,) = self.searcher.search(
                vectors[asked][None], wanted, k=number, allowed=allowed, scores=scores
            )
            return hits

        return _once(best, k) if once else best(k)

    def _scores(self, wanted: str) -> Callable[..., jax.Array]:
        """For what is found; kept, so that it is compiled once."""
        if wanted not in self._across:
            trained = self._model("search across")
            self._across[wanted] = scores_across(trained, wanted)
            self.across = across_by(trained.heads)
        return self._across[wanted]


def _once(best: Callable[[int], list[Hit]], k: int) -> list[Hit]:
    """The best k, each of another file, asking for more until there are so many."""
    number = 8 * k
    while True:
        hits = best(number)
        found: dict[tuple[str, str], Hit] = {}
        for hit in hits:
            found.setdefault((hit.collection, hit.path), hit)
        if len(found) >= k or len(hits) < number:
            return list(found.values())[:k]
        number *= 8
