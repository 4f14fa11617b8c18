"""Search among the seconds of videos by sight and by sound.

    visxp search add INDEX FEATURES ... --collection=news
    visxp search find INDEX --like=talk.mp4 --at=12
    visxp search find INDEX --like=bell.wav --workdir=runs/mine
    visxp search find INDEX --like=dog.jpg --find=sound --workdir=runs/mine
    visxp search remove INDEX FILE ...; visxp search show INDEX
    visxp search graph INDEX; visxp search find INDEX --approximate ...

FEATURES are from `visxp extract`, folders or files; those that are in the index and
have not changed are left out. What was removed, from one --collection or from all, also
those to come, stays out, even if its features are made anew, until it is let in by
`visxp search add --again`. What is not in the index itself needs --workdir, the model
that made it. Sounds for a picture, and pictures for a sound, are found by the cosine in
the space that they have in common, which the stage `contrastive` learns, or else by the
probability that the two belong together, which `avc` learns; which of them is said.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.sources import source_of
from visxp_jax import feature_files
from visxp_jax.command_line import Parser, add_strict, command, tell_skipped
from visxp_jax.errors import VisxpError
from visxp_jax.media import printable
from visxp_jax.progress import progress_bar
from visxp_jax.report.gallery import clock
from visxp_jax.search import adding, compacting
from visxp_jax.search.catalogue import SENSES, Catalogue, Hit
from visxp_jax.search.store import Store


def find(args: argparse.Namespace) -> list[Hit]:
    """The clips that are most like a file.

    Raises:
        VisxpError: the file cannot be used, or something is missing that is needed.
    """
    # Late, for the worker process, which imports this module and reads files only.
    from visxp_jax.search.approximate import Approximate
    from visxp_jax.search.exact import Searcher
    from visxp_jax.search.finder import ACROSS, Finder, trained_for
    from visxp_jax.search.query import vectors_of

    store = Store.existing(args.index)
    searcher = Approximate(store) if args.approximate else Searcher(store)
    known = {segment.collection for segment in store.manifest.segments}
    if unknown := sorted(set(args.collection or ()) - known):
        raise VisxpError(
            f"--collection must be one of the index's, got {unknown[0]!r}; there "
            f"{'is' if len(known) == 1 else 'are'} "
            f"{', '.join(map(repr, sorted(known))) or 'none'}."
        )
    model = partial(trained_for, store, args.workdir)
    finder = Finder(searcher, model)
    names = _names(searcher, args.like, args.collection)
    within = (*(args.collection or ()), None)
    rows = [searcher.row(name, args.at, where) for where in within for name in names]
    row = next((row for row in rows if row is not None), None)
    if row is None and any(searcher.row(name, None) is not None for name in names):
        raise VisxpError(
            f"{printable(args.like)} must have a clip in the index at --at, got "
            f"{args.at:g} s."
        )
    try:
        if row is not None:
            vectors = finder.vectors(row)
        else:
            trained = model("what is not in the index")
            vectors = vectors_of(trained, args.like, args.at)
        hits = finder.find(
            vectors,
            by=args.by,
            find=args.find,
            row=row,
            k=args.k,
            collections=args.collection,
            once=args.once,
        )
    except VisxpError as error:
        raise VisxpError(f"{printable(args.like)}: {error}") from error
    if finder.across:
        print(f"scores: {ACROSS[finder.across]}", file=sys.stderr)
    return hits


def _names(
    searcher: Catalogue, like: Path, collections: Collection[str] | None
) -> list[str]:
    """What a file may be called in the index; there in these collections first.

    Raises:
        VisxpError: there is no such file, here or in the index, or several.
    """
    names = [str(like), source_of(Path(os.path.abspath(like))).name]
    if os.path.lexists(like):
        return names
    ends: list[str] = []
    for where in (collections, None):
        numbers = np.unique(searcher.file[searcher.allowed(where)])
        files = [searcher.names[number] for number in numbers]
        if any(name in files for name in names):
            return names
        ends = [name for name in files if name.endswith(f"/{like}")]
        if ends:
            break
    if len(ends) == 1:
        return ends
    told = f"{printable(like)} must be a file, or one of the index"
    if not ends:
        raise VisxpError(f"{told}; there is no such file.")
    some = ", ".join(printable(Path(name)) for name in ends[:3])
    more = ", ..." if len(ends) > 3 else ""
    raise VisxpError(f"{told}, where {len(ends)} are called so: {some}{more}.")


def add(
    index: Path, features: list[Path], collection: str, *, again: bool, strict: bool
) -> None:
    """Take in feature files, say how far it is safe, and name those that are skipped.

    Raises:
        VisxpError: all were skipped, or any if `strict`; the others are in it.
    """

    def skipped(path: Path, why: str) -> None:
        tqdm.write(f"skipped: {printable(path)}: {why}", file=sys.stderr)

    files = list(feature_files.files_of(features))
    with progress_bar(desc="add", unit="clip") as bar:
        added = adding.add(
            Store(index),
            files,
            collection,
            again=again,
            saved=bar.update,
            skipped=skipped,
        )
    count = len(files) - added.unchanged - added.removed - added.skipped
    told = f"{added.clips} clips of {count} files added"
    told += f"; {added.unchanged} were there" * bool(added.unchanged)
    told += f"; {added.removed} left out, removed before" * bool(added.removed)
    print(told)
    tell_skipped(added.skipped, len(files), strict=strict)


def show(store: Store) -> None:
    """Files and clips by collection, and what stays out of it."""
    files, clips = Counter(), Counter()
    for rows in store.rows(vectors=False):
        paths = rows.table["path"].to_pylist()
        files[rows.collection] += len(set(paths))
        clips[rows.collection] += len(paths)
    for name in sorted(files):
        told = f"{name or '(no collection)'}: {files[name]} files, {clips[name]} clips"
        out = len(store.manifest.kept_out(name))
        print(told + f"; {out} files were removed and stay out" * bool(out))
    print(f"weights: {store.manifest.model_sha256[:12] or 'none yet'}")


def line(hit: Hit) -> str:
    """An answer, for people."""
    where = f"{clock(hit.start_s)} - {clock(hit.end_s)}"
    if hit.shot_start_s is not None and hit.shot_end_s is not None:
        where += f" (shot {clock(hit.shot_start_s)} - {clock(hit.shot_end_s)})"
    path = printable(Path(hit.path))
    return f"{hit.score:7.4f}  {where}  {path}  {hit.collection}".rstrip()


def run(args: argparse.Namespace) -> None:
    """Do what the command line says.

    Raises:
        VisxpError: it cannot be done.
    """
    if args.verb == "add":
        how = {"again": args.again, "strict": args.strict}
        add(args.index, args.features, args.collection, **how)
    elif args.verb == "remove":
        count = Store.existing(args.index).delete(args.files, args.collection)
        print(f"{count} clips removed")
    elif args.verb == "compact":
        if lacking := compacting.compact(Store.existing(args.index)):
            print(
                f"{lacking} segments have no graph any more; `visxp search graph "
                f"{args.index}` makes them again"
            )
    elif args.verb == "graph":
        from visxp_jax.search.approximate import build

        print(f"{build(Store.existing(args.index))} segments got a graph")
    elif args.verb == "show":
        show(Store.existing(args.index))
    else:
        if not args.at >= 0:
            raise VisxpError(f"--at must be 0 or more seconds, got {args.at:g}.")
        if args.k < 1:
            raise VisxpError(f"-k must be at least 1, got {args.k}.")
        hits = find(args)
        if args.json:
            print(json.dumps([hit._asdict() for hit in hits], indent=1))
            return
        for hit in hits:
            print(line(hit))


def parser() -> Parser:
    """Of the command line."""
    whole = Parser("visxp search", __doc__)
    verbs = whole.add_subparsers(dest="verb", required=True)
    made = {}
    for name, what in (
        ("add", "take in feature files"),
        ("remove", "take files out, and keep them out"),
        ("compact", "free the space of what was taken out"),
        ("graph", "make approximate search possible, for millions of clips"),
        ("show", "what is in it"),
        ("find", "what is like a file"),
    ):
        made[name] = verbs.add_parser(name, help=what)
        made[name].add_argument("index", type=Path, metavar="INDEX")
    add, remove, search = made["add"], made["remove"], made["find"]
    add.add_argument("features", type=Path, nargs="+", metavar="FEATURES")
    add.add_argument("--collection", default="", help="that the files belong to")
    add.add_argument(
        "--again",
        action="store_true",
        help="let in what was removed from the collection, too, if FEATURES have it",
    )
    add_strict(add)
    remove.add_argument("files", nargs="+", metavar="FILE", help="as the index has it")
    remove.add_argument("--collection", help="from this one only (default: all)")
    search.add_argument(
        "--like",
        required=True,
        type=Path,
        help="a picture, sound or video, or a file of the index by its path or its end",
    )
    search.add_argument(
        "--at",
        type=float,
        default=0.0,
        metavar="S",
        help="which second of it (default: 0)",
    )
    search.add_argument(
        "--by",
        choices=SENSES,
        help="what of --like counts (default: what it has, sight first)",
    )
    search.add_argument(
        "--find", choices=SENSES, help="what to find by it (default: the same)"
    )
    search.add_argument(
        "--workdir", type=Path, help="of the model, for what is not in the index"
    )
    search.add_argument("--collection", action="append", help="only in these")
    search.add_argument(
        "--approximate", action="store_true", help="by the graph: quick in millions"
    )
    search.add_argument(
        "-k", type=int, default=10, help="number of seconds (default: 10)"
    )
    search.add_argument(
        "--once", action="store_true", help="only the best second of each file"
    )
    search.add_argument("--json", action="store_true", help="for other programs")
    return whole


@command("stopped; what the index has saved is kept.")
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run(parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
