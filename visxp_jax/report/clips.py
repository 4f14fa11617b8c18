"""What the page shows of single clips: their frames, and their sounds to play."""

from collections import Counter
from collections.abc import Collection

import numpy as np

from visxp_jax.progress import progress_bar
from visxp_jax.report.content import Clip, Cluster
from visxp_jax.report.page import wav_bytes
from visxp_jax.report.sounds import SoundTask, sounds_of
from visxp_jax.session import Session
from visxp_jax.types import Features

CLIPS_PER_CLUSTER = 8
SOUND_RATE_HZ = 16_000
# A file that gives no second of sound for so long is left out.
TIMEOUT_S = 120.0


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
        self._sounds: dict[tuple[str, int], np.ndarray] = {}
        self.warnings: list[str] = []

    def load(self, clip_ids: set[int], *, seen: Collection[int] = ()) -> None:
        """Fetch everything that will be shown, one pass over each file.

        Args:
            clip_ids: Shown and to be heard.
            seen: Shown only.

        Sounds are read in processes of their own, as in the preparation: a file may
        have been replaced since by one that crashes, hangs or eats memory.
        """
        from data_prep.pool import Failure, run_isolated
        from data_prep.sources import path_of

        self._frames = self._session.reader.frames("test", clip_ids | set(seen))
        wanted: dict[str, set[int]] = {}
        for i in clip_ids:
            video, start_s = self._where[i]
            wanted.setdefault(video, set()).add(int(start_s))
        folder = self._session.dataset.videos
        names = {path_of(folder, video): video for video in wanted}
        tasks = [
            SoundTask(path, frozenset(wanted[video]), SOUND_RATE_HZ)
            for path, video in names.items()
        ]
        missing = 0
        with progress_bar(total=len(tasks), desc="sounds", unit="file") as bar:
            for task, result in run_isolated(sounds_of, tasks, timeout_s=TIMEOUT_S):
                bar.update()
                if isinstance(result, Failure):
                    missing += 1
                    continue
                name = names[task.path]
                self._sounds |= {(name, s): wave for s, wave in result.items()}
        if missing:
            self.warnings.append(
                f"{missing} of {len(tasks)} videos shown here can no longer be read in "
                f"{folder}: their sounds cannot be played."
            )

    def clip(self, clip_id: int) -> Clip:
        """One clip as the page shows it."""
        video, start_s = self._where[clip_id]
        label = int(self._label[clip_id])
        names = self._session.dataset.label_names
        wave = self._sounds.get((video, int(start_s)))
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
