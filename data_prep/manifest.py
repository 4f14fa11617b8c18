"""One row for every input file: what became of it."""

import csv
import dataclasses
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from data_prep.sources import BESIDE, is_hidden
from visxp_jax.media import FLAGS, flags_told, printable


@dataclass
class VideoRow:
    """What became of one input file.

    Attributes:
        file: Path within the folder of videos.
        status: 'kept'; 'partial' if damage cost some of it; 'skipped'.
        reason: Why not all of it was kept.
        seconds: Length of the pictures.
        sound_seconds: Length of the sound, from where the pictures begin.
        mismatched: 1 if there is sound, over a second longer or shorter than they.
        clips: One-second clips taken.
        dropped: Seconds left out because of damage.
        no_audio: Clips without sound.
        silent: Clips below -60 dBFS.
        still: Clips whose frame is that of the second before.
        partial: Clips with sound for less than the whole second.
        split: 'train', 'validation' or 'test'.
        label: '' if none.
        fps: Frames per second, on average.
        width: Of the pictures as stored.
        height: Of the pictures as stored.
        audio_rate: Hz, 0 without sound.
        video_stream: Number, as FFmpeg counts, of the stream that pictures are of.
        audio_stream: Likewise of the sound, -1 if there is none. Both are -1 of what
            an earlier version prepared.
    """

    file: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    sound_seconds: float = 0.0
    mismatched: int = 0
    clips: int = 0
    dropped: int = 0
    no_audio: int = 0
    silent: int = 0
    still: int = 0
    partial: int = 0
    split: str = ""
    label: str = ""
    fps: float = 0.0
    width: int = 0
    height: int = 0
    audio_rate: int = 0
    video_stream: int = -1
    audio_stream: int = -1

    @property
    def has_sound(self) -> bool:
        """Whether any clip has sound that is not silent."""
        return self.clips > self.no_audio + self.silent


COLUMNS = tuple(field.name for field in dataclasses.fields(VideoRow))


def manifest_csv(rows: Iterable[VideoRow]) -> str:
    """The manifest as text, sorted by file."""
    text = io.StringIO()
    # Text is quoted, so that a carriage return in a name ends no row.
    writer = csv.DictWriter(
        text, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writeheader()
    for row in sorted(rows, key=lambda row: row.file):
        writer.writerow(dataclasses.asdict(row))
    return text.getvalue()


def skipped_videos(manifest: Path) -> tuple[int, int]:
    """How many files were skipped, and of how many.

    Without hidden ones and what lies beside videos, of which nothing was expected.
    """
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if not is_hidden(row["file"])
            and PurePath(row["file"]).suffix.lower() not in BESIDE
        ]
    return sum(row["status"] == "skipped" for row in rows), len(rows)


def summary(rows: list[VideoRow]) -> str:
    """A few lines for people."""
    kept = [row for row in rows if row.status != "skipped"]
    skipped = defaultdict(list)
    for row in rows:
        if row.status == "skipped":
            skipped[row.reason].append(printable(Path(row.file)))
    clips = sum(row.clips for row in rows)
    lines = [f"{len(kept)} of {len(rows)} files kept: {clips} clips of 1 s"]
    splits = Counter({s: 0 for s in ("train", "validation", "test")})
    for row in kept:
        splits[row.split] += row.clips
    lines.append(", ".join(f"{split} {count}" for split, count in splits.items()))
    counts = {flag: sum(getattr(row, flag) for row in rows) for flag in FLAGS}
    if flags := flags_told(counts):
        lines.append(f"of the clips {flags}")
    labels = [row.label for row in kept if row.label]
    if labels:
        lines.append(f"labelled: {len(labels)} files, {len(set(labels))} labels")
    damaged = [row for row in kept if row.status == "partial"]
    if damaged:
        seconds = sum(row.dropped for row in damaged)
        lines.append(f"damaged: {len(damaged)} files, {seconds} seconds dropped")
    mismatched = [printable(Path(row.file)) for row in kept if row.mismatched]
    if mismatched:
        more = ", ..." if len(mismatched) > 3 else ""
        lines.append(
            f"sound over a second longer or shorter than the pictures: "
            f"{len(mismatched)} files ({', '.join(mismatched[:3])}{more})"
        )
    for reason, files in sorted(skipped.items(), key=lambda item: -len(item[1])):
        more = ", ..." if len(files) > 3 else ""
        lines.append(f"skipped {len(files)}: {reason} ({', '.join(files[:3])}{more})")
    return "\n".join(lines)
