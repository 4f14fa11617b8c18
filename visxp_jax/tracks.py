"""The two halves of one pass over a video: pictures and sound on one clock.

Both count seconds from the video stream's start and go by timestamps only. `decode`
feeds them packets; `media` takes out whole seconds.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Generic, NamedTuple, TypeVar

import av
import numpy as np
from av.audio.frame import format_dtypes
from av.audio.plane import AudioPlane
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from PIL import Image

# A second counts as shown in full if this little is missing: containers round.
ROUNDING_S = 0.005
# A longer stretch without a frame, beyond the last one's own duration, is a gap.
MAX_HOLE_S = 1.0
# Sound whose timestamp is off by less follows on directly: timestamps are rounded,
# in Matroska to 1 ms, and cutting at each would be heard.
MAX_DRIFT_S = 0.02
# Sound this far ahead of the pictures is not kept: memory stays bounded.
MAX_AHEAD_S = 600


Made = TypeVar("Made")  # what is made of a frame
# Of a frame, whose pixels are so many times as wide as they are high.
Make = Callable[[av.VideoFrame, float], Made]
OnFrame = Callable[[av.VideoFrame, float], object]  # a frame and its time in seconds


class Picture(NamedTuple, Generic[Made]):
    """The frame shown in the middle of a second."""

    frame: Made
    time_s: float


class PictureTrack(Generic[Made]):
    """Keeps, for each second, the frame shown at its middle; converts no other.

    Where every packet is a picture by itself (DV, ProRes, DNxHD, MJPEG, JPEG 2000: what
    archives keep their masters in), no other is decoded either, and damage in the
    others is not seen; unless somebody watches.

    Attributes:
        position_s: Pictures are known up to here.
        pixel_aspect: As pixels are to be shown, width by height; 1 if nothing is said.
        num_frames: Frames without fault, as far as they were decoded.
        num_faults: Frames and packets that were damaged, or hung on damaged ones.
        damaged: Seconds that touch a gap or have no frame at their middle.
    """

    def __init__(
        self,
        stream: av.VideoStream,
        *,
        made_of: Make[Made],
        start_s: Fraction,
        max_pixels: int,
        max_s: float,
        has_pts: bool,
        on_frame: OnFrame | None = None,
    ) -> None:
        """Read from `stream`; times are relative to `start_s` on its clock.

        Args:
            stream: Whose packets will come.
            made_of: Makes of a frame that is kept what is kept of it.
            start_s: Time of the stream's start.
            max_pixels: A larger frame counts as damaged.
            max_s: A frame beyond it only moves `position_s` there: who reads gives up.
            has_pts: Whether the container stores presentation times. AVI does not; the
                order of decoding tells more than what FFmpeg makes up for it.
            on_frame: Is shown every good frame in the order of presentation.
        """
        self.position_s = 0.0
        self.num_frames = 0
        self.num_faults = 0
        self.damaged: set[int] = set()
        codec = stream.codec_context.codec
        self._alone = codec.intra_only and not codec.delay and on_frame is None
        base = stream.time_base or Fraction(1, 1)
        # Whole numbers: a frame at exactly the middle must count as being there.
        self._base = base.numerator, base.denominator
        self._start = round(start_s / base)
        self._frame_s = float(1 / stream.average_rate) if stream.average_rate else 0.0
        self._made_of = made_of
        self.pixel_aspect = float(stream.sample_aspect_ratio or 1)
        self._on_frame = on_frame
        self._max_pixels = max_pixels
        self._max_s = max_s
        self._has_pts = has_pts
        self._pictures: dict[int, Picture[Made]] = {}
        self._next = 0  # the first second whose middle has not been reached
        self._shown: tuple[av.VideoFrame | av.Packet, float] | None = None
        self._shown_picture: Picture[Made] | None = None
        self._gap_from_s: float | None = None

    def decode(self, packet: av.Packet) -> None:
        """Take the next packet.

        Raises:
            FFmpegError, ValueError: it cannot be decoded.
            MemoryError: it takes more memory than allowed.
        """
        if self._alone and packet.size:
            self._add(packet)
            return
        for frame in packet.decode():
            assert isinstance(frame, av.VideoFrame)
            self._add(frame)

    def _add(self, frame: av.VideoFrame | av.Packet) -> None:
        """Take the next frame in order of presentation, or the packet that holds it."""
        time_s = self._time_s(frame)
        if not self._usable(frame):
            self.fault()
            return
        if time_s > self._max_s:  # before a gap of that length is noted
            self.position_s = time_s
            return
        if self._shown is not None and time_s < self._shown[1]:
            self.num_faults += 1  # a clock that runs backwards: keep what was shown
            return
        if self._gap_from_s is not None:
            # Until the next key frame pictures are built upon what was lost.
            if isinstance(frame, av.VideoFrame) and not frame.key_frame:
                self.num_faults += 1
                return
            self._damage(self._gap_from_s, time_s)
            self._gap_from_s = None
        elif self._shown and time_s - self.position_s > MAX_HOLE_S:
            self._damage(self.position_s, time_s)
        self._settle(time_s)
        # A stream of unknown rate, and no duration: as long as the frame before.
        before_s = time_s - self._shown[1] if self._shown else 0.0
        duration_s = self._duration_s(frame) or before_s
        self._shown, self._shown_picture = (frame, time_s), None
        self.position_s = max(self.position_s, time_s + duration_s)
        self.num_frames += 1
        if self._on_frame is not None and isinstance(frame, av.VideoFrame):
            self._on_frame(frame, time_s)

    def fault(self) -> None:
        """Something could not be decoded: a gap starts after the last good frame."""
        self.num_faults += 1
        if self._gap_from_s is None:
            self._gap_from_s = self.position_s

    def finish(self) -> None:
        """There are no more frames."""
        self._settle(self.position_s)

    def has(self, second: int) -> bool:
        """Whether pictures are known to the end of a second."""
        return second < self._next and self.position_s >= second + 1 - ROUNDING_S

    def take(self, second: int) -> Picture[Made] | None:
        """The frame of a second, None if it is damaged; it is then forgotten."""
        picture = self._pictures.pop(second, None)
        damaged = second in self.damaged
        self.damaged.discard(second)
        return None if damaged else picture

    def _settle(self, until_s: float) -> None:
        while self._next + 0.5 < until_s:
            picture = None
            if self._shown and self._shown[1] <= self._next + 0.5:
                picture = self._picture()
            if picture:
                self._pictures[self._next] = picture
            else:
                self.damaged.add(self._next)
            self._next += 1

    def _picture(self) -> Picture[Made] | None:
        """The frame on show; None if it turns out only now that it is damaged."""
        assert self._shown is not None
        if self._shown_picture is None:
            frame, time_s = self._shown
            if isinstance(frame, av.Packet):
                frame = self._frame_of(frame)
            if frame is None:
                self._shown = None
                return None
            self._shown_picture = Picture(
                self._made_of(frame, self.pixel_aspect), time_s
            )
        return self._shown_picture

    def _frame_of(self, packet: av.Packet) -> av.VideoFrame | None:
        try:
            frames = packet.decode()
        except (FFmpegError, ValueError):
            frames = []
        for frame in frames:
            if isinstance(frame, av.VideoFrame) and self._usable(frame):
                return frame
        self.num_frames -= 1  # it was taken for good
        self.num_faults += 1
        return None

    def _usable(self, frame: av.VideoFrame | av.Packet) -> bool:
        if frame.is_corrupt:
            return False
        if isinstance(frame, av.Packet):
            return True  # how large its picture is will be seen
        return frame.width * frame.height <= self._max_pixels

    def _damage(self, from_s: float, to_s: float) -> None:
        self.damaged.update(range(max(0, math.floor(from_s)), math.ceil(to_s)))

    def _time_s(self, frame: av.VideoFrame | av.Packet) -> float:
        stamp = frame.pts if self._has_pts else frame.dts
        if stamp is None:
            return self.position_s
        return (stamp - self._start) * self._base[0] / self._base[1]

    def _duration_s(self, frame: av.VideoFrame | av.Packet) -> float:
        if frame.duration:
            return frame.duration * self._base[0] / self._base[1]
        return self._frame_s


class Shown(NamedTuple):
    """A frame as clips have it."""

    frame: np.ndarray  # uint8 [size_px, size_px, 3]
    thumbnail: np.ndarray | None  # uint8 [h, w, 3], in its own aspect


def shown(size_px: int, thumbnail_px: int = 0) -> Make[Shown]:
    """Makes of frames RGB, upright.

    swscale makes 8-bit RGB of whatever came (alpha is dropped), Pillow resizes it:
    bilinear with antialiasing, as torchvision does.

    Args:
        size_px: Frames become size_px x size_px; their aspect is not kept.
        thumbnail_px: Longer side of thumbnails; 0 for none.
    """
    reformatter = VideoReformatter()

    def made_of(frame: av.VideoFrame, pixel_aspect: float) -> Shown:
        # One reformatter for all, without threads of its own: 10 times faster.
        rgb = reformatter.reformat(frame, format="rgb24", threads=1)
        image = Image.fromarray(rgb.to_ndarray())

        def resized(size: tuple[int, int]) -> np.ndarray:
            small = image.resize(size, Image.Resampling.BILINEAR)
            return upright(np.asarray(small), frame)

        thumbnail = None
        if thumbnail_px:
            wide = image.width * pixel_aspect
            scale = thumbnail_px / max(wide, image.height)
            size = max(1, round(wide * scale)), max(1, round(image.height * scale))
            thumbnail = resized(size)
        return Shown(resized((size_px, size_px)), thumbnail)

    return made_of


def upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """A frame's picture [h, w, 3] turned as its display matrix says."""
    # It says how far to turn counter-clockwise.
    return np.ascontiguousarray(np.rot90(image, k=round(frame.rotation / 90) % 4))


def planes_of(frame: av.AudioFrame) -> Iterator[np.ndarray]:
    """Samples of a piece of sound, a channel at a time, or of all in turn if packed.

    Not `to_ndarray`, which takes 8 planes for 9.
    """
    channels, dtype = frame.layout.nb_channels, format_dtypes[frame.format.name]
    planes, each = (channels, 1) if frame.format.is_planar else (1, channels)
    for number in range(planes):
        plane: Any = AudioPlane(frame, number)
        yield np.frombuffer(plane, dtype)[: each * frame.samples]


class SoundTrack:
    """Mono samples at one rate, placed by their timestamps.

    Attributes:
        rate_hz: Of the samples.
        position_s: Sound is known up to here.
        num_faults: Packets that could not be decoded.
    """

    def __init__(self, *, rate_hz: int, start_s: Fraction) -> None:
        """Resample to `rate_hz`; times are relative to `start_s`."""
        self.position_s = 0.0
        self.num_faults = 0
        self.rate_hz = rate_hz
        self._start_s = float(start_s)
        # A run is a stretch of sound without a hole or a change of format.
        self._resampler: av.AudioResampler | None = None
        self._format: tuple | None = None
        self._run_end_s = 0.0  # of what has been put into the resampler
        self._next = 0  # where the sample to come out of it belongs
        self._known = -(2**62)  # up to here samples are in place
        # By second: samples, and which of them were there.
        self._waves: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._first_kept = 0

    def decode(self, packet: av.Packet) -> None:
        """Take the next packet.

        Raises:
            FFmpegError, ValueError: it cannot be decoded.
            MemoryError: it takes more memory than allowed.
        """
        for frame in packet.decode():
            assert isinstance(frame, av.AudioFrame)
            self.add(frame)

    def add(self, frame: av.AudioFrame) -> None:
        """Take the next piece of sound; values that are no numbers are a fault."""
        floating = frame.format.name.startswith(("flt", "dbl"))
        if floating and not all(np.isfinite(x).all() for x in planes_of(frame)):
            self.fault()
            return
        time_s = self._run_end_s
        base = frame.time_base
        if frame.pts is not None and base is not None:
            time_s = frame.pts * base.numerator / base.denominator - self._start_s
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        jump = abs(time_s - self._run_end_s) > MAX_DRIFT_S
        if self._resampler is None or jump or form != self._format:
            self.finish()
            self._format, self._run_end_s = form, time_s
            self._next = round(time_s * self.rate_hz)
            self._resampler = av.AudioResampler(
                "s16", "mono", self.rate_hz, frame_size=self.rate_hz // 4
            )
        for piece in self._resampler.resample(frame):
            self._place(piece)
        self._run_end_s += frame.samples / frame.sample_rate

    def fault(self) -> None:
        """A packet could not be decoded; the hole shows in the timestamps."""
        self.num_faults += 1

    def finish(self) -> None:
        """Take what the resampler still holds back."""
        if self._resampler is not None:
            for piece in self._resampler.resample(None):
                self._place(piece)
            self._resampler = None

    def take(self, second: int) -> tuple[np.ndarray, int]:
        """(int16 [rate_hz], samples of it that were there) of a second; forgets it."""
        found = self.window(second * self.rate_hz)
        self.forget(second + 1)
        return found

    def window(self, first: int) -> tuple[np.ndarray, int]:
        """The same of the `rate_hz` samples from `first` on, which may be negative."""
        rate = self.rate_hz
        wave, filled = np.zeros(rate, np.int16), 0
        second, offset = divmod(first, rate)
        # The end of one second and the beginning of the next, if it begins in one.
        for key, ours, theirs in (
            (second, slice(0, rate - offset), slice(offset, rate)),
            (second + 1, slice(rate - offset, rate), slice(0, offset)),
        ):
            if key in self._waves:
                samples, there = self._waves[key]
                wave[ours] = samples[theirs]
                filled += int(np.count_nonzero(there[theirs]))
        return wave, filled

    def forget(self, before: int) -> None:
        """Drop the seconds before one; what comes of them is not kept any more."""
        self._first_kept = max(self._first_kept, before)
        for second in [second for second in self._waves if second < before]:
            del self._waves[second]

    def _place(self, piece: av.AudioFrame) -> None:
        samples = piece.to_ndarray()[0]
        first, self._next = self._next, self._next + len(samples)
        # What comes again is dropped, what is missing stays zero.
        self._store(max(first, self._known), samples[max(0, self._known - first) :])
        self._known = max(self._known, self._next)
        self.position_s = self._known / self.rate_hz

    def _store(self, first: int, samples: np.ndarray) -> None:
        if first < 0:
            samples, first = samples[-first:], 0
        while len(samples):
            second, offset = divmod(first, self.rate_hz)
            part = samples[: self.rate_hz - offset]
            if self._first_kept <= second <= self._first_kept + MAX_AHEAD_S:
                if second not in self._waves:
                    rate = self.rate_hz
                    self._waves[second] = np.zeros(rate, np.int16), np.zeros(rate, bool)
                wave, there = self._waves[second]
                wave[offset : offset + len(part)] = part
                there[offset : offset + len(part)] = True
            samples, first = samples[len(part) :], first + len(part)
