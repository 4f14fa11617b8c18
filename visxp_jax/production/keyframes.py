"""Keyframes of a video, each with the second of sound around it, in one pass."""

import io
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from visxp_jax.container import MAX_PIXELS
from visxp_jax.decode import Decoding, decoding
from visxp_jax.media import MediaError, ReadReport, why_nothing
from visxp_jax.shots import ShotDetector
from visxp_jax.tracks import Make, upright

# That of production: its networks were trained on such pictures.
JPEG_QUALITY = 100
MAX_JPEG_SIDE = 65_500  # of libjpeg
NEARLY_SQUARE = 0.01  # aspect of pixels, as PySceneDetect has it
HALF_MS = 500  # of the sound, to each side of the keyframe
# Frames of the running shot that may become its keyframe, and no more of them than so
# many bytes, should they be large; of these there may be two such sets.
MOST_CANDIDATES, FEWEST_CANDIDATES = 32, 4
CANDIDATE_BYTES = 256 * 2**20
# Times of cuts have been rounded to microseconds.
ROUNDING_S = 1e-6

Window = tuple[np.ndarray, int]  # int16 [rate_hz], samples of it that were there


class Keyframe(NamedTuple):
    """A picture of a video and the sound around it."""

    time_ms: int
    jpeg: bytes
    windows: list[Window]  # at each rate; none if the video has no sound


@dataclass
class Segments:
    """What became of a video; filled in on the way.

    Attributes:
        shots: (first, last) ms; none where nobody looked for them.
        report: How the pass went; its clips are keyframes.
    """

    shots: list[tuple[int, int]] = field(default_factory=list)
    report: ReadReport = field(default_factory=ReadReport)


def whole_ms(time_s: float) -> int:
    """Cut off, not rounded, as production has it; 4.1 s are 4100 ms all the same."""
    return round(1e6 * time_s) // 1000


def jpeg_maker(path: Path) -> Make[bytes]:
    """Makes of the frames of a file JPEG, upright and in full size.

    Of a frame and the aspect of its pixels: where they are no squares, the picture is
    as wide as it is to be shown, as production's is (of upright ones).
    """
    reformatter = VideoReformatter()

    def jpeg_of(frame: av.VideoFrame, pixel_aspect: float) -> bytes:
        width = shown_width(frame.width, frame.height, pixel_aspect)
        if max(width, frame.height) > MAX_JPEG_SIDE:
            size = f"{width} x {frame.height}"
            raise MediaError(path, f"over the limit of JPEG, {MAX_JPEG_SIDE}: {size}")
        rgb = reformatter.reformat(
            frame,
            width,
            frame.height,
            format="rgb24",
            interpolation=Interpolation.BICUBIC,
            threads=1,
        )
        out = io.BytesIO()
        image = Image.fromarray(upright(rgb.to_ndarray(), frame))
        image.save(out, "JPEG", quality=JPEG_QUALITY)
        return out.getvalue()

    return jpeg_of


def shown_width(width: int, height: int, pixel_aspect: float) -> int:
    """How wide a picture is to be shown; as it is where pixels are nearly squares.

    Also where it would be over a limit: files may say anything.
    """
    shown = max(1, round(width * pixel_aspect))
    nearly = abs(pixel_aspect - 1) <= NEARLY_SQUARE
    over = shown > MAX_JPEG_SIDE or shown * height > MAX_PIXELS
    return width if nearly or over else shown


def by_seconds(
    path: Path,
    rates_hz: Sequence[int],
    segments: Segments,
    on_second: Callable[[], None],
) -> Iterator[Keyframe]:
    """The frame on show in the middle of each whole second: 500, 1500, ... ms.

    Nobody looks for shots. Seconds that touch a gap left by damage are left out.

    Args:
        path: A local video file.
        rates_hz: Of the sound.
        segments: Filled in on the way.
        on_second: Called for every second passed.

    Raises:
        MediaError: the file cannot be used, or has no whole second.
    """
    report = segments.report
    with decoding(path, made_of=jpeg_maker(path), rates_hz=rates_hz) as tracks:
        second = 0
        for ended in tracks.advance():
            while tracks.pictures.has(second) and (
                ended or tracks.heard_s >= second + 1
            ):
                picture = tracks.pictures.take(second)
                windows = [sound.take(second) for sound in tracks.sounds]
                if picture is None:
                    report.dropped += 1
                else:
                    report.clips += 1
                    yield Keyframe(1000 * second + HALF_MS, picture.frame, windows)
                second += 1
                on_second()
            if ended:
                report.note(tracks)
    if not report.clips:
        raise MediaError(path, why_nothing(report))


def by_shots(
    path: Path,
    rates_hz: Sequence[int],
    segments: Segments,
    on_second: Callable[[], None],
) -> Iterator[Keyframe]:
    """The frame nearest to the middle of each shot, under its own time.

    Of a shot that is longer than 64 frames the nearest of some that are evenly spaced:
    off its middle by at most 1/64 of the shot, more where frames are larger than 8 MiB.
    Memory does not grow with the length of the video.

    Args:
        path: A local video file.
        rates_hz: Of the sound.
        segments: Filled in on the way.
        on_second: Called for every second passed.

    Raises:
        MediaError: the file cannot be used, or none of its pictures.
        VisxpError: PySceneDetect is not installed.
    """
    finder = _Finder(path, segments)
    report = segments.report
    with decoding(
        path, made_of=lambda *_: None, rates_hz=rates_hz, on_frame=finder.see
    ) as tracks:
        finder.begin(tracks)
        second = 0
        for ended in tracks.advance():
            if not ended and not tracks.pictures.has(second):
                continue
            if ended:
                finder.end()
                report.note(tracks)
            for keyframe in finder.listen(math.inf if ended else tracks.heard_s):
                report.clips += 1
                yield keyframe
            while tracks.pictures.has(second):
                report.dropped += tracks.pictures.take(second) is None
                second += 1
                on_second()
    if not report.clips:
        raise MediaError(path, why_nothing(report))


@dataclass(eq=False, slots=True)
class Candidate:
    """A frame that may become the keyframe of its shot."""

    time_s: float
    frame: av.VideoFrame | None  # None once it is chosen and encoded
    windows: list[Window] | None = None  # None until its sound is known


class Candidates:
    """Frames of the second half of the running shot, evenly spaced, and all the latest.

    Its middle will not be before that of what there has been of it by now. Since a cut
    is told late, the latest frames may turn out to be of the next shot.
    """

    def __init__(self, behind_s: float) -> None:
        """For cuts that are told by so much too late."""
        self._behind_s = behind_s
        self._begun_s = 0.0  # the shot
        self._spaced: list[Candidate] = []
        self._latest: deque[Candidate] = deque()
        self._step_s = 0.0

    def add(self, frame: av.VideoFrame, time_s: float) -> None:
        """Take the next frame."""
        latest = self._latest
        latest.append(Candidate(time_s, frame))
        most = most_candidates(frame)
        while len(latest) > 1 and (
            latest[0].time_s < latest[-2].time_s - self._behind_s or len(latest) > most
        ):
            self._keep(latest.popleft(), most)

    def _keep(self, new: Candidate, most: int) -> None:
        """Take a frame for good, unless it is too near the one before."""
        spaced = self._spaced
        if spaced and new.time_s < spaced[-1].time_s + self._step_s:
            return
        spaced.append(new)
        if len(spaced) < most:
            return
        middle_s = (self._begun_s + new.time_s) / 2
        while len(spaced) > 1 and spaced[1].time_s <= middle_s:
            spaced.pop(0)
        if len(spaced) < most:
            return
        self._step_s = (spaced[-1].time_s - spaced[0].time_s) / (most / 2)
        self._spaced = []
        for candidate in spaced:
            kept = self._spaced
            if not kept or candidate.time_s >= kept[-1].time_s + self._step_s:
                kept.append(candidate)

    def unheard(self, until_s: float) -> Iterator[Candidate]:
        """Those up to a time that have no sound yet, the latest first."""
        for group in (self._latest, self._spaced):
            for candidate in reversed(group):
                if candidate.windows is not None:
                    return
                if candidate.time_s <= until_s:
                    yield candidate

    def take(self, end_s: float) -> Candidate | None:
        """The one nearest to the middle of the shot, which ends; begins the next."""
        ours, theirs = [], deque()
        for candidate in (*self._spaced, *self._latest):
            early = candidate.time_s < end_s - ROUNDING_S
            (ours if early else theirs).append(candidate)
        self._spaced, self._latest, self._step_s = [], theirs, 0.0
        middle_s = (self._begun_s + end_s) / 2
        self._begun_s = end_s
        # Of two that are equally near the first, whatever floats make of it.
        return min(ours, key=lambda x: round(abs(x.time_s - middle_s), 6), default=None)


def most_candidates(frame: av.VideoFrame) -> int:
    """How many frames like this one may be held."""
    size = sum(plane.buffer_size for plane in frame.planes)
    return max(FEWEST_CANDIDATES, min(MOST_CANDIDATES, CANDIDATE_BYTES // size))


class _Finder:
    """Follows shots as frames pass by, and cuts out the sound as it passes."""

    def __init__(self, path: Path, segments: Segments) -> None:
        self._segments = segments
        self._jpeg_of = jpeg_maker(path)
        self._last_s = 0.0  # the latest frame
        self._chosen: deque[tuple[Candidate, bytes]] = deque()

    def begin(self, tracks: Decoding[None]) -> None:
        """Of these frames will come."""
        self._tracks = tracks
        self._detector = ShotDetector(tracks.rate)
        self._candidates = Candidates(self._detector.behind_s)

    def see(self, frame: av.VideoFrame, time_s: float) -> None:
        """Take the next frame."""
        self._last_s = time_s
        cuts_s = self._detector.add(frame, time_s)
        self._candidates.add(frame, time_s)
        for cut_s in cuts_s:
            self._close(cut_s)

    def end(self) -> None:
        """There are no more frames."""
        end_s = self._tracks.pictures.position_s
        self._close(end_s)
        self._segments.shots = [
            (whole_ms(first), whole_ms(last))
            for first, last in self._detector.shots(end_s)
        ]

    def _close(self, end_s: float) -> None:
        """The running shot has ended there."""
        chosen = self._candidates.take(end_s)
        if chosen is not None:  # a gap left by damage may be all of a shot
            assert chosen.frame is not None
            jpeg = self._jpeg_of(chosen.frame, self._tracks.pictures.pixel_aspect)
            self._chosen.append((chosen, jpeg))
            chosen.frame = None  # its sound may come seconds later

    def listen(self, heard_s: float) -> Iterator[Keyframe]:
        """Keyframes that have all of their sound, which is known up to there."""
        until_s = heard_s - HALF_MS / 1000
        for candidate, _ in self._chosen:
            if candidate.windows is None and candidate.time_s <= until_s:
                self._cut_out(candidate)
        for candidate in self._candidates.unheard(until_s):
            self._cut_out(candidate)
        while self._chosen:
            candidate, jpeg = self._chosen[0]
            if candidate.windows is None:
                break
            self._chosen.popleft()
            yield Keyframe(whole_ms(candidate.time_s), jpeg, candidate.windows)
        # A frame to come is not before the last, and 1 ms is for the cut-off.
        needed_s = min(until_s, self._last_s) - HALF_MS / 1000 - 0.001
        for sound in self._tracks.sounds:
            sound.forget(math.floor(needed_s))

    def _cut_out(self, candidate: Candidate) -> None:
        """Its second of sound, as far as there is any."""
        begin_ms = whole_ms(candidate.time_s) - HALF_MS
        candidate.windows = [
            sound.window(begin_ms * sound.rate_hz // 1000)
            for sound in self._tracks.sounds
        ]
