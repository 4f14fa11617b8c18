"""Shots of a video, by PySceneDetect, from frames that are being decoded anyway."""

from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from visxp_jax.errors import VisxpError

# As SceneManager of PySceneDetect: the longer side of what it looks at.
SIDE_PX = 256
# Times go to the detector in microseconds, as from its own readers.
TICKS_PER_S = 1_000_000
TICK_S = Fraction(1, TICKS_PER_S)
# For a file that does not tell how many pictures a second it has.
USUAL_RATE = Fraction(25)
MISSING = (
    "shots need PySceneDetect, which is not installed ({}): "
    "pip install '.[shots]' in the folder of visxp_jax."
)


def check_detector() -> None:
    """Look whether it is there, without the time that loading it takes.

    Raises:
        VisxpError: it is not installed.
    """
    for module in ("cv2", "scenedetect"):
        if find_spec(module) is None:
            raise VisxpError(MISSING.format(f"no module {module}"))


def load_detector(
    rate: Fraction = USUAL_RATE,
) -> tuple[Any, Callable[[float], Any]]:
    """PySceneDetect's ContentDetector with its defaults, and what makes its times.

    Args:
        rate: Pictures per second, which may be on average.

    Raises:
        VisxpError: it is not installed.
    """
    try:
        import cv2
        from scenedetect import ContentDetector, FrameTimecode
        from scenedetect.common import Timecode
    except ImportError as error:
        raise VisxpError(MISSING.format(error)) from error
    cv2.setNumThreads(1)  # files are read in parallel

    class Detector(ContentDetector):
        """With its own score, to the last digit, in a third of the time.

        Its arrays of 32-bit differences are a sixth of what making a video's folder
        takes.
        """

        _before: np.ndarray | None = None

        def _calculate_frame_score(self, timecode: Any, frame_img: np.ndarray) -> float:
            hsv = cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV)
            before, self._before = self._before, hsv
            if before is None:
                return 0.0
            sums = cv2.sumElems(cv2.absdiff(hsv, before))[:3]
            pixels = hsv.shape[0] * hsv.shape[1]
            hue, saturation, value = (part / pixels for part in sums)
            # Not sum(), which rounds otherwise from Python 3.12 on.
            return (hue + saturation + value) / 3

    # A rate is looked at anew for every time, unless it is that of another.
    start = FrameTimecode(0, fps=rate)

    def time_of(time_s: float) -> Any:
        tick = max(0, round(time_s * TICKS_PER_S))
        return FrameTimecode(Timecode(tick, TICK_S), fps=start)

    return Detector(), time_of


def detector_name() -> str:
    """What finds shots here, and its version.

    Raises:
        VisxpError: it is not installed.
    """
    load_detector()
    from scenedetect import __version__

    return f"PySceneDetect {__version__}, ContentDetector"


class ShotDetector:
    """Finds cuts while frames pass by; they are told late where cuts are near others.

    The detector counts its shortest shot, 15 frames, by time and the average rate: at a
    variable rate frames may be more or fewer.

    Attributes:
        cuts_s: When the shots after the first begin.
        behind_s: No cut is told that is so long before the last but one frame.
    """

    def __init__(self, rate: Fraction | None) -> None:
        """For a video of so many pictures a second, which may be on average.

        Raises:
            VisxpError: PySceneDetect is not installed.
        """
        self.cuts_s: list[float] = []
        rate = rate or USUAL_RATE
        self._detector, self._time_of = load_detector(rate)
        self.behind_s = float(self._detector.event_buffer_length / rate)
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None

    def add(self, frame: av.VideoFrame, time_s: float) -> list[float]:
        """Look at the next frame; the cuts that are certain now, of it or of before."""
        if self._size is None:
            shrink = max(frame.width, frame.height, SIDE_PX) / SIDE_PX
            self._size = (
                max(1, round(frame.width / shrink)),
                max(1, round(frame.height / shrink)),
            )
        small = self._reformatter.reformat(
            frame,
            *self._size,
            format="bgr24",
            # The nearest pixels alone, as OpenCV does it: an average over all would
            # hide what scores of frames are made of, and shots with it.
            interpolation=Interpolation.FAST_BILINEAR,
            threads=1,
        )
        found = self._detector.process_frame(self._time_of(time_s), small.to_ndarray())
        cuts_s = [float(cut.seconds) for cut in found]
        self.cuts_s += cuts_s
        return cuts_s

    def shots(self, end_s: float) -> list[tuple[float, float]]:
        """(start, end) of every shot of a video that ends there, at least one."""
        edges_s = [0.0, *self.cuts_s, end_s]
        return list(zip(edges_s[:-1], edges_s[1:], strict=True))
