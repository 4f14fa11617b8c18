"""What an index has: the file that names its segments, and what is kept out of it."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from visxp_jax.errors import VisxpError

MANIFEST = "index.json"
FORMAT, READABLE = 3, (2, 3)  # before 3 nothing was kept out


@dataclass(frozen=True)
class Segment:
    """What was added at once.

    Attributes:
        name: Of its folder.
        rows: Number of clips.
        collection: That they belong to.
        deleted: Files of which the clips no longer count.
    """

    name: str
    rows: int
    collection: str
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """All that there is.

    Attributes:
        model_sha256: Of the weights that made all vectors; '' if there are none yet.
        next: Number of the next segment.
        segments: In the order in which they were added.
        removed: Collections and the files that are kept out of them; None for all,
            also those to come.
        again: The same, of files that are removed from all but were let in again.
    """

    model_sha256: str = ""
    next: int = 1
    segments: tuple[Segment, ...] = ()
    removed: tuple[tuple[str | None, str], ...] = ()
    again: tuple[tuple[str, str], ...] = ()

    @classmethod
    def read(cls, file: Path) -> "Manifest":
        """From its file.

        Raises:
            FileNotFoundError: there is none.
            VisxpError: it is damaged, or of another version.
        """
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if found.pop("format") not in READABLE:
                raise ValueError("it is of another version")
            segments = tuple(
                Segment(**one | {"deleted": tuple(one["deleted"])})
                for one in found.pop("segments")
            )
            removed, again = (
                tuple((where, file) for where, file in found.pop(name, ()))
                for name in ("removed", "again")
            )
            return cls(segments=segments, removed=removed, again=again, **found)
        except FileNotFoundError:
            raise
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise VisxpError(f"{file} is damaged: {error}.") from error

    def text(self) -> str:
        """For its file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    def kept_out(self, collection: str) -> set[str]:
        """Files that were removed from a collection, and not let in again."""
        removed = {file for where, file in self.removed if where in (None, collection)}
        return removed - {file for where, file in self.again if where == collection}

    def keeping_out(self, files: set[str], collection: str | None) -> "Manifest":
        """With these kept out of a collection; None for all."""

        def stays(where: str | None, file: str) -> bool:
            return file not in files or collection not in (None, where)

        return replace(
            self,
            removed=(
                *(one for one in self.removed if stays(*one)),
                *((collection, file) for file in sorted(files)),
            ),
            again=tuple(one for one in self.again if stays(*one)),
        )

    def letting_in(self, files: set[str], collection: str) -> "Manifest":
        """With these not kept out of a collection any more."""
        removed = [x for x in self.removed if x[0] != collection or x[1] not in files]
        of_all = {file for where, file in removed if where is None and file in files}
        again = {*self.again, *((collection, file) for file in of_all)}
        return replace(self, removed=tuple(removed), again=tuple(sorted(again)))
