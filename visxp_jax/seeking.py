"""To a second of a video, without decoding all that lies before it."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from visxp_jax.clock import JOINED, Clock
from visxp_jax.container import packets_of

# Sound from so long before is decoded, too: files hold it earlier or later.
LEAD_S = 1.0
# Packets that are kept until it is known whether they are needed; more are decoded.
MAX_KEPT = 5_000


def packets_from(
    container: Any,
    path: Path,
    video: av.VideoStream,
    audio: av.AudioStream | None,
    clock: Clock,
    from_s: float,
) -> Iterator[av.Packet | None]:
    """The packets of `packets_of` that what is shown from a time on needs.

    They begin with the last key frame until then. It is found by seeking; in formats
    that are joined of pieces, whose clocks only a pass from the start tells, by passing
    over what comes before. Where a file says wrongly where its key frames are, pictures
    may be missing: only the whole of `packets_of` has them then.

    Args:
        container: From `opened`; nothing has been read of it.
        path: Its file.
        video: From `streams_of`.
        audio: Likewise.
        clock: For times.
        from_s: The time, from the stream's start on.

    Yields:
        Packets; None for each that is passed over.
    """
    start, base = video.start_time or 0, video.time_base or Fraction(1, 1)
    if container.format.name not in JOINED:
        with suppress(FFmpegError):  # what follows is then of the start, or lacks
            container.seek(start + round(from_s / base), stream=video)
        yield from packets_of(container, path, video, audio, clock)
        return
    at_s = float(start * base) + from_s
    kept: list[av.Packet] = []  # from the latest key frame on
    reached = False
    for packet in packets_of(container, path, video, audio, clock):
        time_s = _time_s(packet)
        if reached:
            yield packet
        elif packet.stream is not video:
            early = time_s is not None and time_s < at_s - LEAD_S
            yield None if early else packet
        elif (
            (time_s is not None and time_s > at_s)
            or len(kept) == MAX_KEPT
            or not packet.size  # the end
        ):
            reached = True
            yield from (*kept, packet)
        else:
            kept = [packet] if packet.is_keyframe else [*kept, packet]
            yield None
    if not reached:
        yield from kept


def _time_s(packet: av.Packet) -> float | None:
    stamp = packet.dts if packet.pts is None else packet.pts
    if stamp is None or packet.time_base is None:
        return None
    return float(stamp * packet.time_base)
