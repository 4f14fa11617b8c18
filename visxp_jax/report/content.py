"""What the page of a run shows: plain values, no drawing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Clip:
    """One second of a video, to see and to hear."""

    video: str  # path or name of the file
    start_s: float
    label: str | None
    frame_jpeg: bytes
    sound_wav: bytes | None  # None where there is no sound to play
    link: str = ""  # where to go on from it, if there is such a place


@dataclass(frozen=True)
class Cluster:
    """Some clips of a cluster, the surest first."""

    index: int
    size: int  # clips in the cluster, shown or not
    purity: float | None  # share of the most frequent label, in [0, 1]
    top_label: str | None
    clips: Sequence[Clip]


@dataclass(frozen=True)
class Neighbours:
    """The clips most similar to one clip, within and across modalities."""

    query: Clip
    # "picture -> sounds": [(clip, similarity), ...], most similar first.
    lists: Mapping[str, Sequence[tuple[Clip, float]]]


@dataclass(frozen=True)
class Tree:
    """A tree over clips, and which of them stands for each node."""

    merges: np.ndarray  # int [n - 1, 2]
    heights: np.ndarray  # [n - 1]
    faces: np.ndarray  # int [n - 1]


@dataclass(frozen=True)
class Hierarchy:
    """Trees over the same clips."""

    clips: Sequence[Clip]
    trees: Mapping[str, Tree]  # the first is shown first
    apart: Sequence[float | None]  # how much sound and picture disagree, in [0, 1]


@dataclass(frozen=True)
class Curve:
    """A logged value over training steps."""

    name: str
    points: Sequence[tuple[float, float]]  # (step, value); not finite is a gap
    chance: float | None  # value without learning
    group: str  # curves of a group stand together: losses, health, learning


@dataclass(frozen=True)
class Figure:
    """A measured value beside what it must be compared with."""

    name: str
    value: float | None  # None: not measured
    meaning: str  # one sentence
    baselines: Mapping[str, float | None] = field(default_factory=dict)
    chance: float | None = None
    is_share: bool = True  # lies in [0, 1] by definition, so a bar can show it


@dataclass(frozen=True)
class HealthRow:
    """The latest value of one sign of healthy clusters."""

    name: str
    value: float | None
    good: str  # what a healthy value looks like, a few words


@dataclass(frozen=True)
class Report:
    """All that the page shows; every part but the title may be empty."""

    title: str
    summary: Mapping[str, str] = field(default_factory=dict)  # what made this
    figures: Sequence[Figure] = ()
    curves: Sequence[Curve] = ()
    stages: Sequence[tuple[str, int]] = ()  # (name, first step)
    health: Sequence[HealthRow] = ()
    cluster_sizes: Sequence[int] = ()  # one per cluster, empty ones included
    clusters: Sequence[Cluster] = ()
    neighbours: Sequence[Neighbours] = ()
    hierarchy: Hierarchy | None = None
    data_rows: Sequence[tuple[str, str]] = ()  # kept, skipped, silent, still, ...
    warnings: Sequence[str] = ()
