"""A few seconds of a video as a small MP4 that every browser plays."""

import math
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from data_prep.pool import Beat
from visxp_jax.clock import Clock
from visxp_jax.container import (
    MAX_PIXELS,
    TOO_MUCH_MEMORY,
    MediaError,
    opened,
    packets_of,
    streams_of,
)
from visxp_jax.seeking import packets_from
from visxp_jax.tracks import SoundTrack

MAX_HEIGHT, MAX_WIDTH = 360, 1280
RATE_HZ = 48_000
TICKS = 90_000  # of a second, for pictures
# Sound is read for so much longer than pictures: files hold it a little later.
LAG_S = 1.0
# A first picture so late is of a key frame that should not have been the first.
LATE_S = 1.0
PACKETS_PER_BEAT = 1_000


class CutTask(NamedTuple):
    """A part of a file to play."""

    path: Path
    from_s: float
    to_s: float
    out: Path


def cut_of(task: CutTask, beat: Beat) -> Path | str:
    """Runs in a worker; a text says why there is none."""
    try:
        write_cut(task.path, task.out, task.from_s, task.to_s, beat=beat)
    except MediaError as error:
        return error.reason
    return task.out


def write_cut(
    path: Path,
    out: Path,
    from_s: float,
    to_s: float,
    *,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Write seconds [from_s, to_s) of a video to a file, as H.264 and AAC.

    Times are counted from its first picture, as those of clips are. What comes before
    is decoded only where there are no pictures without.

    Args:
        path: A local video file.
        out: To write.
        from_s: Where it begins.
        to_s: Where it ends, if the video goes on for so long.
        beat: Called now and then.

    Raises:
        MediaError: the file cannot be used, or has no picture there.
    """
    for whole in (False, True):
        with opened(path) as container:
            video, audio = streams_of(container, path)
            video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            start = video.start_time or 0
            base = video.time_base or Fraction(1, 1)
            cut = _Cut(out, video, audio, start * base, from_s, to_s)
            try:
                clock = Clock(container.format.name)
                what = container, path, video, audio, clock
                packets = packets_of(*what) if whole else packets_from(*what, from_s)
                for number, packet in enumerate(packets):
                    if number % PACKETS_PER_BEAT == 0:
                        beat()
                    if packet is None:
                        continue
                    if cut.ended_by(packet):
                        break
                    cut.add(packet)
                if cut.finish(early=whole):
                    return
            except MemoryError as error:
                raise MediaError(path, TOO_MUCH_MEMORY) from error
            finally:
                cut.close()
    raise MediaError(path, f"no picture at {from_s:g} s")


class _Cut:
    """The file that is written."""

    def __init__(
        self,
        out: Path,
        video: av.VideoStream,
        audio: av.AudioStream | None,
        start_s: Fraction,
        from_s: float,
        to_s: float,
    ) -> None:
        self._video = video
        self._start_s = float(start_s)
        self._from_s, self._to_s = from_s, to_s
        # AVI does not store presentation times.
        self._stamp = "dts" if video.container.format.name == "avi" else "pts"
        self._file: Any = av.open(
            os.fspath(out), "w", format="mp4", options={"movflags": "faststart"}
        )
        rate = min(max(video.average_rate or Fraction(25), Fraction(1)), Fraction(60))
        self._pictures = self._file.add_stream("libx264", rate=rate)
        self._pictures.options = {"preset": "veryfast", "crf": "26"}
        self._pictures.time_base = Fraction(1, TICKS)
        self._pictures.codec_context.time_base = Fraction(1, TICKS)
        self._sound, self._track = None, None
        if audio is not None:
            self._sound = self._file.add_stream("aac", rate=RATE_HZ, layout="mono")
            self._track = SoundTrack(
                rate_hz=RATE_HZ, start_s=start_s + Fraction(from_s)
            )
        self._second = 0  # of the sound, from the beginning of the cut
        self._size: tuple[int, int] | None = None  # before it is turned
        self._reformatter = VideoReformatter()
        self._before: av.VideoFrame | None = None  # shown when the cut begins
        self._first_s = 0.0  # when the first picture was written
        self._last = -1  # when the latest was

    def _time_s(self, of: Any) -> float | None:
        stamp = getattr(of, self._stamp)
        stamp = of.pts if stamp is None else stamp
        if stamp is None or of.time_base is None:
            return None
        return float(stamp * of.time_base) - self._start_s

    def ended_by(self, packet: av.Packet) -> bool:
        """Whether nothing that comes from here on belongs to it."""
        time_s = self._time_s(packet) if packet.stream is self._video else None
        return time_s is not None and time_s > self._to_s + LAG_S

    def add(self, packet: av.Packet) -> None:
        """Take a packet; what is damaged is left out."""
        try:
            if packet.stream is self._video:
                for frame in packet.decode():
                    self._see(frame)
            elif self._track is not None:
                self._track.decode(packet)
                self._hear(self._track.position_s)
        except (FFmpegError, ValueError):
            return

    def _see(self, frame: av.VideoFrame) -> None:
        time_s = self._time_s(frame)
        if time_s is None or time_s >= self._to_s:
            return
        tick = round((time_s - self._from_s) * TICKS)
        if tick < 0:
            self._before = frame
            return
        before, self._before = self._before, None
        if before is not None and tick > 0:
            self._write(before, 0)
        self._write(frame, tick)

    def _write(self, frame: av.VideoFrame, tick: int) -> None:
        if tick <= self._last:
            return
        turns = round(frame.rotation / 90) % 4
        if self._size is None:
            self._first_s = tick / TICKS
            self._size = _fitting(frame, self._video.sample_aspect_ratio, turns)
            size = self._size[::-1] if turns % 2 else self._size
            self._pictures.width, self._pictures.height = size
            self._pictures.pix_fmt = "yuv420p"
        width, height = self._size
        small = self._reformatter.reformat(frame, width, height, "rgb24")
        image = np.ascontiguousarray(np.rot90(small.to_ndarray(), turns), np.uint8)
        made = av.VideoFrame.from_ndarray(image, format="rgb24")
        made.pts, made.time_base = tick, Fraction(1, TICKS)
        self._file.mux(self._pictures.encode(made))
        self._last = tick

    def _hear(self, until_s: float) -> None:
        assert self._track is not None
        assert self._sound is not None
        # The file begins once the size of its pictures is known.
        while self._size and self._second < min(self._length_s, until_s - 1 + 1e-6):
            wave, _ = self._track.take(self._second)
            wave = wave[: math.ceil((self._length_s - self._second) * RATE_HZ)]
            samples = (wave.astype(np.float32) / 32_768)[None]
            piece = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            piece.rate = RATE_HZ
            piece.pts, piece.time_base = self._second * RATE_HZ, Fraction(1, RATE_HZ)
            self._file.mux(self._sound.encode(piece))
            self._second += 1

    @property
    def _length_s(self) -> float:
        return self._to_s - self._from_s

    def finish(self, *, early: bool) -> bool:
        """Write the rest.

        Args:
            early: Whether it may begin with a picture that comes later.

        Returns:
            Whether it has pictures, from the beginning on.
        """
        if self._before is not None:
            self._write(self._before, 0)
        if self._last < 0 or (self._first_s > LATE_S and not early):
            return False
        self._file.mux(self._pictures.encode(None))
        if self._track is not None and self._sound is not None:
            self._track.finish()
            self._hear(self._last / TICKS + 1)
            self._file.mux(self._sound.encode(None))
        return True

    def close(self) -> None:
        """Nothing more is written."""
        self._file.close()


def _fitting(
    frame: av.VideoFrame, aspect: Fraction | None, turns: int
) -> tuple[int, int]:
    """Even width and height within the limits, before it is turned; never larger."""
    width, height = frame.width * float(aspect or 1), float(frame.height)
    high, wide = (width, height) if turns % 2 else (height, width)
    scale = min(1.0, MAX_HEIGHT / high, MAX_WIDTH / wide)
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))
