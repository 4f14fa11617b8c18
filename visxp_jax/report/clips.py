"""What the page shows of single clips: their frames, and their sounds to play."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np

from visxp_jax.report.content import Clip, Cluster
from visxp_jax.report.page import wav_bytes
from visxp_jax.report.sounds import SOUND_RATE_HZ, read_all
from visxp_jax.session import Session
from visxp_jax.types import Features

CLIPS_PER_CLUSTER = 8


class TestClips:
    """Frames and sounds of some test clips, from the data and the original files."""

    __test__ = False  # not one for pytest

    def __init__(self, session: Session) -> None:
        """Read where each test clip comes from."""
        self._session = session
        index = session.dataset.index("test")
        self._where = {
            int(i): (str(v), float(s))
            for i, v, s in zip(
                index["clip_id"], index["video"], index["start_s"], strict=True
            )
        }
        self._label = dict(zip(index["clip_id"], index["label"], strict=True))
        self._frames: dict[int, bytes] = {}
        self._paths: dict[str, Path] = {}
        self._sounds: dict[tuple[Path, int], np.ndarray] = {}
        self.warnings: list[str] = []

    def load(self, clip_ids: set[int], *, seen: Collection[int] = ()) -> None:
        """Fetch everything that will be shown, one pass over each file.

        Args:
            clip_ids: Shown and to be heard.
            seen: Shown only.
        """
        from data_prep.sources import path_of

        self._frames = self._session.reader.frames("test", clip_ids | set(seen))
        folder = self._session.dataset.videos
        wanted: dict[Path, set[int]] = {}
        for i in clip_ids:
            video, start_s = self._where[i]
            path = self._paths.setdefault(video, path_of(folder, video))
            wanted.setdefault(path, set()).add(int(start_s))
        self._sounds, missing = read_all(wanted)
        if missing:
            self.warnings.append(
                f"{missing} of {len(wanted)} videos shown here can no longer be read "
                f"in {folder}: their sounds cannot be played."
            )

    def clip(self, clip_id: int) -> Clip:
        """One clip as the page shows it."""
        video, start_s = self._where[clip_id]
        label = int(self._label[clip_id])
        names = self._session.dataset.label_names
        path = self._paths.get(video, Path(video))
        wave = self._sounds.get((path, int(start_s)))
        return Clip(
            video=video,
            start_s=start_s,
            label=names[label] if label >= 0 else None,
            frame_jpeg=self._frames.get(clip_id, b""),
            sound_wav=None if wave is None else wav_bytes(wave, SOUND_RATE_HZ),
        )

    def cluster(
        self, index: int, members: np.ndarray, features: Features, size: int
    ) -> Cluster:
        """A cluster with its purity over all members, of which some are shown."""
        labels = [int(self._label[int(i)]) for i in members]
        known = Counter(x for x in labels if x >= 0)
        names = self._session.dataset.label_names
        top = known.most_common(1)
        return Cluster(
            index=index,
            size=size,
            purity=top[0][1] / sum(known.values()) if top else None,
            top_label=names[top[0][0]] if top else None,
            clips=[self.clip(int(i)) for i in members[:CLIPS_PER_CLUSTER]],
        )
