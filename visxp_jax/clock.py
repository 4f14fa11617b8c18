"""Timestamps of files that were joined of several, each with a clock of its own."""

import av

# Formats that are cut and joined as they are broadcast, with the clock of each piece.
JOINED = ("mpegts", "mpeg")
# A clock that leaps so far ahead, or so far back, has been replaced by another.
LEAP_S, BACK_S = 10.0, 0.5
# Sound and pictures of one moment may lie so far apart in a file.
MAX_APART_S = 1.0


class Clock:
    """One clock for a file whose pieces brought their own, as FFmpeg's tools have it.

    Where a stream's timestamps leap, those of all streams are moved so that it goes on:
    pieces joined end to end follow each other, and a damaged timestamp costs nothing.
    A stretch of more than `LEAP_S` that was never recorded takes no time, then.

    Attributes:
        num_leaps: How often.
    """

    def __init__(self, format_name: str) -> None:
        """Looks at `JOINED` formats only: others may hold a picture for minutes."""
        self.num_leaps = 0
        self._joined = format_name in JOINED
        self._moved_s, self._before_s = 0.0, 0.0  # now, and until the last leap
        self._time_s: dict[int, float] = {}  # of the last packet of each stream
        self._next_s: dict[int, float] = {}  # when its next should come

    def straighten(self, packet: av.Packet) -> None:
        """Move the packet's times to where they belong."""
        if not self._joined or packet.time_base is None:
            return
        base = float(packet.time_base)
        if packet.dts is not None:
            stated_s, stream = packet.dts * base, packet.stream_index
            if stream in self._next_s:
                self._check(stated_s, self._next_s[stream])
            time_s = stated_s + self._moved_s
            # Where a packet has no duration, the last distance: the next is as far off.
            apart_s = max(time_s - self._time_s.get(stream, time_s), 0.0)
            self._time_s[stream] = time_s
            self._next_s[stream] = time_s + ((packet.duration or 0) * base or apart_s)
        ticks = round(self._moved_s / base)
        if packet.dts is not None:
            packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks

    def _check(self, stated_s: float, own_s: float) -> None:
        """Take another clock if by this one a packet is not where its stream goes on.

        A stream may pause, so ahead means ahead of all; none may go back.
        """
        latest_s = max(self._next_s.values())
        off_s = stated_s + self._moved_s - own_s
        back_s = stated_s + self._before_s - own_s  # by the clock before the leap
        if abs(off_s) >= BACK_S > abs(back_s):  # it was but one damaged timestamp
            moved_s = self._before_s
        elif off_s <= -BACK_S or stated_s + self._moved_s >= latest_s + LEAP_S:
            moved_s = max(own_s, latest_s - MAX_APART_S) - stated_s
        else:
            return
        self.num_leaps += 1
        self._moved_s, self._before_s = moved_s, self._moved_s
