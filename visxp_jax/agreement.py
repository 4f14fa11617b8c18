"""Which videos have sound that does not belong to their pictures, or none.

    visxp agreement FEATURES --out=agreement.html

FEATURES are from `visxp extract`, by a model whose last stage teaches correspondence:
it gives each second the probability that its sound belongs to its picture. The page
lists the videos in which that is least on average, and the seconds: dubbed, exchanged
or shifted sound, music laid over, silence.
"""

import shlex
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.sources import address_of
from visxp_jax import __version__
from visxp_jax.atomic import write_whole
from visxp_jax.command_line import Parser, command, without
from visxp_jax.errors import VisxpError
from visxp_jax.feature_files import about_of, columns_of, files_of
from visxp_jax.progress import progress_bar
from visxp_jax.report.agreement import Second, Video, agreement_html

TITLE = "Agreement of sight and sound"
# On the page: the videos with the least agreement, and those with the most silence.
VIDEOS, QUIET = 250, 50
SECONDS = 200
LOWEST = 3  # seconds of each video that are shown
COLUMNS = ["path", "start_s", "has_audio", "silent", "agreement"]


class Found(NamedTuple):
    """Agreement of one video."""

    file: Path  # of its features
    path: str
    start_s: np.ndarray
    agreement: np.ndarray  # NaN where there is nothing to hear
    has_audio: np.ndarray
    silent: np.ndarray

    @property
    def mean(self) -> float:
        """Over the seconds that can be heard; NaN without any."""
        heard = self.agreement[~np.isnan(self.agreement)]
        return float(heard.mean()) if len(heard) else float("nan")

    @property
    def quiet(self) -> float:
        """Share of seconds without sound, or with silence."""
        return float((~self.has_audio | self.silent).mean())


def of_videos(agreement: np.ndarray, video: np.ndarray) -> np.ndarray:
    """Mean agreement of each video, [v].

    Args:
        agreement: Of seconds, [n].
        video: int [n], 0 to v - 1.
    """
    return np.bincount(video, agreement) / np.bincount(video)


def read(files: Iterable[Path]) -> list[Found]:
    """Agreement of every video of feature files.

    Raises:
        VisxpError: a file is no such one, or of a model that gives no agreement.
    """
    found, models = [], set()
    for file in files:
        models.add(about_of(file)["model_sha256"])
        if len(models) > 1:
            raise VisxpError(
                f"{file} must be by the same weights as those before: what two models "
                "say cannot be compared."
            )
        table = columns_of(file, COLUMNS)
        heard = table["has_audio"].to_numpy() & ~table["silent"].to_numpy()
        agreement = table["agreement"].to_numpy().astype(float)
        if np.isnan(agreement[heard]).any():
            raise VisxpError(
                f"{file} must be by a model whose last stage teaches correspondence, "
                "which alone says whether sound belongs to pictures: `avc`, or one "
                "with `representation` above 0."
            )
        columns = (
            table[name].to_numpy() for name in ("start_s", "has_audio", "silent")
        )
        start_s, has_audio, silent = columns
        path = table["path"][0].as_py()
        found.append(Found(file, path, start_s, agreement, has_audio, silent))
    return found


def seconds_of(found: Found, rows: Iterable[int]) -> list[Second]:
    """Some seconds of a video, with their thumbnails."""
    rows, address = list(rows), address_of(Path.cwd(), found.path)
    thumbnails = columns_of(found.file, ["thumbnail"])["thumbnail"]
    return [
        Second(
            video=found.path,
            start_s=float(found.start_s[row]),
            agreement=float(found.agreement[row]),
            thumbnail=thumbnails[row].as_py(),
            address=address,
        )
        for row in rows
    ]


def least(agreement: np.ndarray, count: int) -> np.ndarray:
    """Where it is least, from the least on; not where it is NaN."""
    order = np.argsort(agreement, kind="stable")  # NaN come last
    return order[: min(count, int((~np.isnan(agreement)).sum()))]


def page(found: list[Found], made: dict[str, str]) -> str:
    """The page of some videos."""
    order = sorted(found, key=lambda one: (np.isnan(one.mean), one.mean))
    shown, rest = order[:VIDEOS], order[VIDEOS:]
    shown += sorted(rest, key=lambda one: -one.quiet)[:QUIET]
    videos = [
        Video(
            path=one.path,
            seconds=len(one.start_s),
            agreement=None if np.isnan(one.mean) else one.mean,
            mute=float((~one.has_audio).mean()),
            silent=float(one.silent.mean()),
            course=one.agreement,
            lowest=seconds_of(one, least(one.agreement, LOWEST)),
        )
        for one in shown
    ]
    every = np.concatenate([one.agreement for one in found])
    owner = np.repeat(np.arange(len(found)), [len(one.start_s) for one in found])
    first = np.cumsum([0, *(len(one.start_s) for one in found)])
    worst = least(every, SECONDS)
    by_place: dict[int, Second] = {}
    for number in np.unique(owner[worst]):  # each file is read once
        places = worst[owner[worst] == number]
        seconds = seconds_of(found[number], places - first[number])
        by_place |= zip(places.tolist(), seconds, strict=True)
    seconds = [by_place[place] for place in worst.tolist()]
    return agreement_html(TITLE, videos, seconds, of=len(found), made=made)


def run(features: list[Path], out: Path) -> None:
    """Write the page.

    Raises:
        VisxpError: there are no features with agreement, or it cannot be written.
    """
    files = list(files_of(features))
    bar = progress_bar(iterable=files, desc="read", unit="file")
    found = read(bar)
    about = about_of(found[0].file)
    try:
        made = {
            "weights": str(about["model_sha256"])[:12],
            "model": str(about.get("model", "")),
            "visxp_jax": __version__,
            "made": time.strftime("%Y-%m-%d %H:%M"),
            "command": shlex.join(without(features)),
        }
        write_whole(out, page(found, made))
    except OSError as error:
        raise VisxpError(f"cannot write {out}: {error}.") from error
    print(f"{len(found)} videos -> {out}")


@command("stopped; nothing was written.")
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser("visxp agreement", __doc__)
    parser.add_argument("features", type=Path, nargs="+", metavar="FEATURES")
    parser.add_argument("--out", type=Path, required=True, metavar="PAGE.html")
    args = parser.parse_args(argv)
    run(args.features, args.out)


if __name__ == "__main__":
    sys.exit(main())
