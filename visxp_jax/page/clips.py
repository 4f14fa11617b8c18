"""Clips to play, cut from the original files when they are asked for."""

import os
import secrets
import threading
from collections import OrderedDict
from pathlib import Path

from data_prep.sources import path_of
from visxp_jax.errors import VisxpError
from visxp_jax.page.answers import Missing, played
from visxp_jax.page.cut import CutTask, cut_of
from visxp_jax.page.places import WAIT_S, taken
from visxp_jax.search.catalogue import Hit
from visxp_jax.search.isolated import isolated

CACHE_BYTES = 64 * 2**20


class Clips:
    """Makes clips, and keeps the latest."""

    def __init__(self, folder: Path, workers: threading.Semaphore) -> None:
        """Cut in a folder.

        Args:
            folder: For files that are being made.
            workers: As many may be at work.
        """
        self._folder = folder
        self._workers = workers
        self._kept: OrderedDict[tuple[Path, float, float], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def mp4(self, hit: Hit) -> bytes:
        """The second of a clip and some after it, or its shot.

        Raises:
            Missing: the original file is gone.
            Busy: others have to be cut first.
            VisxpError: it cannot be used any more.
        """
        path = path_of(Path.cwd(), hit.path)
        if not os.path.isfile(path):
            raise Missing(
                "the original file is no longer where it was indexed; put it back, or "
                "extract and add it from where it is now."
            )
        key = (path, *played(hit))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with taken(self._workers, WAIT_S):
            data = self._cut(*key)
        with self._lock:
            self._kept[key] = data
            while sum(map(len, self._kept.values())) > CACHE_BYTES:
                self._kept.popitem(last=False)
        return data

    def _cut(self, path: Path, from_s: float, to_s: float) -> bytes:
        out = self._folder / f"{secrets.token_hex(8)}.mp4"
        try:
            return isolated(cut_of, CutTask(path, from_s, to_s, out)).read_bytes()
        except OSError as error:
            raise VisxpError(f"the clip cannot be written: {error.strerror}.") from None
        finally:
            out.unlink(missing_ok=True)
