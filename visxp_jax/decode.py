"""One pass over a video: its pictures, and its sound at one rate or more."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic

import av
import numpy as np
from av.error import FFmpegError

from visxp_jax.clock import Clock
from visxp_jax.container import (
    MAX_DURATION_S,
    MAX_PIXELS,
    TOO_MUCH_MEMORY,
    MediaError,
    opened,
    packets_of,
    streams_of,
)
from visxp_jax.seeking import packets_from
from visxp_jax.tracks import Made, Make, OnFrame, PictureTrack, SoundTrack, planes_of

# Pictures this far on, and no sound of the second yet: there is none.
MAX_LAG_S = 10.0


class Decoding(Generic[Made]):
    """A file that is being decoded, packet by packet.

    Attributes:
        pictures: What is known of its pictures.
        sounds: The same sound at each of the rates; none if it has none.
        rate: Pictures per second, as far as the file tells.
        streams: Numbers, as FFmpeg counts, of its picture and its sound, -1 for none.
    """

    def __init__(
        self,
        container: Any,
        path: Path,
        made_of: Make[Made],
        rates_hz: Sequence[int],
        on_frame: OnFrame | None,
        from_s: float,
    ) -> None:
        """See `decoding`."""
        self._from_s = from_s
        self._container, self._path = container, path
        self._video, self._audio = streams_of(container, path)
        self.streams = self._video.index, self._audio.index if self._audio else -1
        self._video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        self._clock = Clock(container.format.name)
        start_s = (self._video.start_time or 0) * Fraction(self._video.time_base or 0)
        self.rate = self._video.guessed_rate or self._video.average_rate
        self.pictures = PictureTrack(
            self._video,
            made_of=made_of,
            start_s=start_s,
            max_pixels=MAX_PIXELS,
            max_s=MAX_DURATION_S,
            has_pts=container.format.name != "avi",
            on_frame=on_frame,
        )
        self.sounds = [
            SoundTrack(rate_hz=rate, start_s=start_s)
            for rate in rates_hz
            if self._audio is not None
        ]
        for sound in self.sounds:
            sound.forget(int(from_s))

    @property
    def heard_s(self) -> float:
        """No sound is to come of what was before."""
        if not self.sounds:
            return float("inf")
        heard_s = min(sound.position_s for sound in self.sounds)
        return max(heard_s, self.pictures.position_s - MAX_LAG_S)

    @property
    def num_faults(self) -> int:
        """Packets and pictures that were damaged."""
        faults = self.sounds[0].num_faults if self.sounds else 0  # all have the same
        return self.pictures.num_faults + faults

    @property
    def num_leaps(self) -> int:
        """Times that the file's clock was replaced by another, see `Clock`."""
        return self._clock.num_leaps

    def advance(self) -> Iterator[bool]:
        """Decode everything.

        Yields:
            After each packet False, and True once at the end.

        Raises:
            MediaError: it takes too much memory, or is too long.
        """
        what = self._container, self._path, self._video, self._audio, self._clock
        late = self._from_s > 0
        for packet in packets_from(*what, self._from_s) if late else packets_of(*what):
            try:
                if packet is not None:
                    self._decode(packet)
            except MemoryError as error:
                raise MediaError(self._path, TOO_MUCH_MEMORY) from error
            if self.pictures.position_s > MAX_DURATION_S:
                raise MediaError(self._path, f"longer than {MAX_DURATION_S:.0f} s")
            yield False
        self.pictures.finish()
        for sound in self.sounds:
            sound.finish()
        yield True

    def _decode(self, packet: av.Packet) -> None:
        """A packet, whose damage is noted; that of a picture is a gap."""
        if packet.stream is self._video:
            try:
                self.pictures.decode(packet)
            except (FFmpegError, ValueError):
                self.pictures.fault()
            return
        try:
            for frame in packet.decode():
                assert isinstance(frame, av.AudioFrame)
                # Copies: FFmpeg names the channels of a frame that did not, once the
                # first resampler has it, and the next would take it for a change.
                copies = [copied(frame) for _ in self.sounds[1:]]
                for sound, own in zip(self.sounds, [frame, *copies], strict=False):
                    sound.add(own)
        except (FFmpegError, ValueError):
            for sound in self.sounds:
                sound.fault()


def copied(frame: av.AudioFrame, channel: int | None = None) -> av.AudioFrame:
    """A copy of a piece of sound, or of one of its channels: the last if fewer."""
    layout, channels = frame.layout.name, frame.layout.nb_channels
    planes = list(planes_of(frame))
    # Packed, as planes of more than 7 channels are not taken.
    values: Any = np.stack(planes, axis=-1).reshape(-1, channels)
    if channel is not None:
        values, layout = values[:, [min(channel, channels - 1)]], "mono"
    copy = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(values).reshape(1, -1),
        format=frame.format.packed.name,
        layout=layout,
    )
    copy.sample_rate = frame.sample_rate
    copy.pts, copy.time_base = frame.pts, frame.time_base
    return copy


@contextmanager
def decoding(
    path: Path,
    *,
    made_of: Make[Made],
    rates_hz: Sequence[int],
    on_frame: OnFrame | None = None,
    from_s: float = 0.0,
) -> Iterator[Decoding[Made]]:
    """Open a video for one pass.

    Args:
        path: A local video file.
        made_of: Makes of the frame in the middle of a second what is kept of it.
        rates_hz: Samples per second that its sound is wanted at.
        on_frame: Is shown every good frame, with its time, in the order of
            presentation; where every picture stands by itself, all are decoded then.
        from_s: The first time that is wanted, see `packets_from`.

    Raises:
        MediaError: it cannot be opened, has no video, or is over a limit.
    """
    with opened(path) as container:
        yield Decoding(container, path, made_of, rates_hz, on_frame, from_s)
