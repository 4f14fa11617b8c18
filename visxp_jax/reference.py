"""By which setting a spectrogram that another pipeline made differs from VisXP's.

A table of settings, of which each differs in one thing from VisXP's, and a search for
when the second begins. All are tried; the one that comes nearest is named if it
explains the difference, or most of it.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.error import FFmpegError

from visxp_jax.audio.spectrogram import VISXP_RATES_HZ, Spectrogram, visxp_at
from visxp_jax.clock import Clock
from visxp_jax.container import (
    TOO_MUCH_MEMORY,
    MediaError,
    opened,
    packets_of,
    printable,
    streams_of,
)
from visxp_jax.decode import copied
from visxp_jax.errors import VisxpError
from visxp_jax.media import PARTIAL_SHARE
from visxp_jax.production.arrays import read_pickled_dict
from visxp_jax.production.folder import time_and_rate
from visxp_jax.tracks import SoundTrack

# Of normalised values: where no value differs by so much, spectrograms are equal.
TOLERANCE = 5e-3
# Two decoders or two resamplers of the same sound differ by less in the mean (5e-4 and
# 2.3e-3 at most on real files), though single bins where there is next to no power may
# differ by 0.3; sound that is shifted by one sample differs by more (5e-3 at least).
ROUNDING = 3e-3
AS_ROUNDING = "in the mean as little as between two decoders or resamplers"
# What explains less is not worth a name: it must leave less than this share of the mean
# difference. Where pipelines differ in what is not tried here, what had nothing to do
# with it left 0.29 and more, and what nearly was it 0.10 to 0.34.
NEAR_SHARE = 0.25
RATES_HZ = (16_000, 22_050, 24_000, 44_100, 48_000)
LOW_HZ = (0, 20, 50, 60, 80, 125, 300)
HIGH_HZ = (4_000, 7_500, 7_600, 8_000, 11_025, 14_000)
# Sound from so long before the second, and as much after it; one more, as a second's
# samples at the highest rate, taken at the lowest, are 3.2 s.
FURTHEST_S = 2
SPAN_S = 2 * FURTHEST_S + 2


class Source(NamedTuple):
    """Which of a video's sound.

    Attributes:
        stream: Its number in the file; None for the one that is taken here.
        rate_hz: Samples per second.
        channel: None for the mix of all.
    """

    stream: int | None
    rate_hz: int
    channel: int | None = None


class Setting(NamedTuple):
    """One way to make a spectrogram other than VisXP's.

    Attributes:
        name: What is different about it.
        spectrogram: The recipe.
        source: What it is made of.
        late: Samples from where the second should begin to where it does.
    """

    name: str
    spectrogram: Spectrogram
    source: Source
    late: int = 0


class Heard(NamedTuple):
    """Sound of a source around a second.

    Attributes:
        wave: float32 [SPAN_S * rate_hz] in [-1, 1], zeros where there is none.
        share: Of the second itself that there is sound for.
    """

    wave: np.ndarray
    share: float


class Difference(NamedTuple):
    """Of two spectrograms, absolute, over the frames that both have."""

    mean: float
    largest: float

    def __str__(self) -> str:
        """For people."""
        return f"largest {self.largest:.2g}, mean {self.mean:.2g}"


def settings(rate_hz: int) -> Iterator[Setting]:
    """All others of a video's one sound."""
    right = visxp_at(rate_hz)
    source = Source(None, rate_hz)

    def other(name: str, **changes: object) -> Setting:
        return Setting(name, dataclasses.replace(right, **changes), source)

    yield other("values are not normalised: (x - 1.93) / 17.89", mean=0.0, std=1.0)
    yield other(
        "values are normalised twice: the network's own step is in them",
        mean=right.mean + right.std * 0.0467,
        std=right.std * 0.9170,
    )
    yield other(
        "log10 in place of the natural log",
        mean=right.mean * np.log(10),
        std=right.std * np.log(10),
    )
    yield other(
        "decibels (10 log10) in place of the natural log",
        mean=right.mean * np.log(10) / 10,
        std=right.std * np.log(10) / 10,
    )
    yield other("samples in [-1, 1] in place of int16", sample_scale=1.0)
    for pre_emphasis in (0.0, 0.9, 0.95, 0.96, 0.98, 0.99):
        name = f"pre-emphasis of {pre_emphasis:g} in place of 0.97"
        yield other(name, pre_emphasis=pre_emphasis)
    yield other("a Hann window in place of none", window="hann")
    yield other("librosa's mel filters in place of whole bins", bank="mel")
    yield other("an FFT of 512 in place of 1024", n_fft=512)
    yield other("an FFT of 2048 in place of 1024", n_fft=2048)
    for ms in (25, 30, 32):
        samples = rate_hz * ms // 1000
        if samples <= right.n_fft:
            yield other(
                f"windows of {ms} ms in place of 20",
                window_samples=samples,
                frames=1 + -(-(rate_hz - samples) // right.hop_samples),
            )
    yield other(
        "frames are centred: half a window of zeros comes first",
        pad_samples=right.window_samples // 2,
    )
    for low in LOW_HZ:
        for high in (rate_hz // 2, *HIGH_HZ):
            if (low or high < rate_hz // 2) and high <= rate_hz // 2:
                name = f"bands from {low} to {high} Hz in place of 0 to {rate_hz // 2}"
                yield other(name, low_hz=low, high_hz=high)
    for rate in RATES_HZ:
        if rate != rate_hz:
            name = f"sound of {rate} Hz under the name of {rate_hz} Hz"
            yield Setting(name, right, Source(None, rate))
            # Rounded as python_speech_features does: of 22,050 a hundredth is 221.
            hop = (rate + 50) // 100
            recipe = dataclasses.replace(visxp_at(rate), hop_samples=hop)
            name = f"the whole recipe at {rate} Hz under the name of {rate_hz} Hz"
            yield Setting(name, recipe, Source(None, rate))
    for channel, side in enumerate(("left", "right")):
        name = f"the {side} channel in place of the mix"
        yield Setting(name, right, Source(None, rate_hz, channel))


def other_streams(path: Path) -> list[int]:
    """The numbers of the streams with sound that is not taken here."""
    with opened(path) as container:
        _, best = streams_of(container, path)
        found = [stream for stream in container.streams.audio if stream.codec_context]
        return [s.index for s in found if best is None or s.index != best.index]


def read_waves(
    path: Path,
    sources: Sequence[Source],
    first_ms: int,
    on_second: Callable[[], object],
) -> dict[Source, Heard]:
    """The sound from `first_ms` on, for `SPAN_S`, in one pass.

    Args:
        path: A local video file.
        sources: All of one stream, the first of the mix of all channels.
        first_ms: Counted from the first picture; may be negative.
        on_second: Called for every second passed.

    Returns:
        What there is of each; those with nothing in the second itself are left out.

    Raises:
        MediaError: the file cannot be opened, has no video, or is over a limit.
    """
    with opened(path) as container:
        video, audio = streams_of(container, path)
        if sources[0].stream is not None:
            audio = container.streams[sources[0].stream]
        start_s = (video.start_time or 0) * Fraction(video.time_base or 0)
        tracks = [SoundTrack(rate_hz=x.rate_hz, start_s=start_s) for x in sources]
        for track in tracks:
            track.forget(first_ms // 1000)
        clock, second = Clock(container.format.name), 0
        for packet in packets_of(container, path, video, audio, clock):
            if packet.stream is video:
                continue
            try:
                for frame in packet.decode():
                    assert isinstance(frame, av.AudioFrame)
                    # Copies, as in `Decoding`.
                    copies = [copied(frame, x.channel) for x in sources[1:]]
                    for track, own in zip(tracks, [frame, *copies], strict=True):
                        track.add(own)
            except MemoryError as error:
                raise MediaError(path, TOO_MUCH_MEMORY) from error
            except (FFmpegError, ValueError):
                for track in tracks:
                    track.fault()
            while tracks[0].position_s > second:
                second += 1
                on_second()
            # A second more: the others hold back more, or less, and end in an echo.
            if tracks[0].position_s > first_ms / 1000 + SPAN_S + 1:
                break
        waves = {}
        for source, track in zip(sources, tracks, strict=True):
            track.finish()
            rate = source.rate_hz
            first = first_ms * rate // 1000
            parts = [track.window(first + i * rate) for i in range(SPAN_S)]
            if filled := parts[FURTHEST_S][1]:
                wave = np.concatenate([samples for samples, _ in parts])
                wave = wave.astype(np.float32) / 32_768
                waves[source] = Heard(wave, filled / rate)
    return waves


def difference(found: np.ndarray, reference: np.ndarray) -> Difference:
    """Of [bands, frames]; infinite if bands differ."""
    if len(found) != len(reference):
        return Difference(np.inf, np.inf)
    frames = min(found.shape[1], reference.shape[1])
    apart = np.abs(found[:, :frames] - reference[:, :frames])
    # In float64: the sum of what a float32 can hold need not be one.
    return Difference(float(apart.mean(dtype=np.float64)), float(apart.max()))


def difference_of(
    setting: Setting, wave: np.ndarray, reference: np.ndarray
) -> Difference:
    """From a reference to what a setting makes of a wave of `read_waves`."""
    recipe = setting.spectrogram
    begin = FURTHEST_S * setting.source.rate_hz + setting.late
    return difference(recipe.log_mel(wave[begin : begin + recipe.rate_hz]), reference)


def _at_its_best(setting: Setting, wave: np.ndarray, reference: np.ndarray) -> Setting:
    """The same with the second where the reference is most like it, to a sample."""
    recipe = setting.spectrogram
    rate, hop = recipe.rate_hz, recipe.hop_samples
    furthest = FURTHEST_S * rate
    # The frames of a second end where those of the second that begins 99 hops later
    # begin: together they are of all seconds that begin whole hops (of 10 ms) apart.
    apart = recipe.frames * hop
    count = -(-len(wave) // apart)
    padded = np.zeros((count + 1) * rate, np.float32)
    padded[: len(wave)] = wave
    found = []
    for step_ms in range(10):
        first = step_ms * rate // 1000
        clips = [padded[first + i * apart :][:rate] for i in range(count)]
        frames = np.concatenate(list(recipe.log_mel(np.stack(clips))), axis=1)
        for i in range(2 * furthest // hop):
            mean = difference(frames[:, i : i + recipe.frames], reference).mean
            late = first + i * hop - furthest
            found.append((mean, abs(late), late))
    near, ms = min(found)[-1], rate // 1000
    around = range(max(near - ms, -furthest), min(near + ms, furthest) + 1)
    best = min(
        (setting._replace(late=late) for late in around),
        key=lambda x: (difference_of(x, wave, reference).mean, abs(x.late)),
    )
    if not best.late:
        return best
    side = "later" if best.late > 0 else "earlier"
    when = f"the second begins {abs(best.late) / rate * 1000:.4g} ms {side}"
    return best._replace(name=f"{setting.name}, and {when}" if setting.name else when)


def compare(
    video: Path, reference: Path, on_second: Callable[[], object] = lambda: None
) -> list[str]:
    """What to say of a reference and the same second of a video.

    Args:
        video: A local file.
        reference: Named by its time and rate, as VisXP's are.
        on_second: Called for every second of sound that is decoded.

    Returns:
        Lines; the first begins with 'equal' or 'differs'.

    Raises:
        VisxpError: a file cannot be used.
    """
    middle_ms, rate_hz = time_and_rate(reference)
    wanted = _read_reference(reference, rate_hz)
    ours = Setting("", visxp_at(rate_hz), Source(None, rate_hz))
    first_ms = middle_ms - 500 - 1000 * FURTHEST_S

    def read(sources: Sequence[Source]) -> dict[Source, Heard]:
        return read_waves(video, sources, first_ms, on_second)

    waves = read([ours.source])
    streams = [Source(stream, rate_hz) for stream in other_streams(video)]
    for source in streams if not waves else ():
        waves |= read([source])
    if not waves:
        raise VisxpError(
            f"{printable(video)} must have sound at {middle_ms / 1000:.1f} s, but has "
            "none there."
        )
    nothing = Heard(np.zeros(SPAN_S * rate_hz, np.float32), 0.0)
    own_sound = waves.get(ours.source, nothing)
    notes = []
    if own_sound.share < 1 - PARTIAL_SHARE:
        notes = [f"the video has sound for {own_sound.share:.0%} of that second"]
    if wanted.shape != ours.spectrogram.shape:
        bands, frames = ours.spectrogram.shape
        notes += [
            f"shape: [1, {bands}, {frames}] expected, got [1, {wanted.shape[0]}, "
            f"{wanted.shape[1]}]; {_why(wanted.shape, ours.spectrogram.shape)}"
        ]
        if len(wanted) != bands:
            return ["differs: it has another number of bands", *notes]
    own = difference_of(ours, own_sound.wave, wanted)
    if own.largest < TOLERANCE:
        return [f"equal: {own} (limit of the largest {TOLERANCE})", *notes]
    others = list(settings(rate_hz))
    sources = {setting.source for setting in others} - {ours.source}
    waves |= read([ours.source, *sources])
    if ours.source in waves:
        others.append(_at_its_best(ours, own_sound.wave, wanted))
    for source in streams:
        if source not in waves:
            waves |= read([source])
        if source in waves:
            number = source.stream
            name = f"audio stream {number} of the file in place of the one taken here"
            other = ours._replace(name=name, source=source)
            others.append(_at_its_best(other, waves[source].wave, wanted))
    with warnings.catch_warnings():  # librosa's, of filters that no bin feeds
        warnings.simplefilter("ignore", UserWarning)
        tried = [
            (difference_of(setting, waves[setting.source].wave, wanted), setting.name)
            for setting in others
            if setting.source in waves
        ]
    best, name = min(tried, key=lambda pair: pair[0])
    told = f"differs: {own} (limit of the largest {TOLERANCE})"
    return [f"{told}; {_told(own, best, name)}", *notes]


def _told(own: Difference, best: Difference, name: str) -> str:
    """What explains a difference, and how much of it."""
    most = best.mean < NEAR_SHARE * own.mean
    if best.largest < TOLERANCE:
        return f"because {name} (then {best})"
    if own.mean < ROUNDING:
        return AS_ROUNDING
    if most and best.mean < ROUNDING:
        return f"because {name} (then {best}: {AS_ROUNDING})"
    if most:
        return f"no single setting explains it; nearest: {name} (then {best})"
    return "no single setting explains it"


def _read_reference(path: Path, rate_hz: int) -> np.ndarray:
    """Its spectrogram, float32 [bands, frames]."""
    if rate_hz not in VISXP_RATES_HZ:
        raise VisxpError(
            f"{os.fspath(path)!r} must be named by its time and a rate that is a "
            f"multiple of {VISXP_RATES_HZ.step} from {VISXP_RATES_HZ[0]} to "
            f"{VISXP_RATES_HZ[-1]}, got {rate_hz}."
        )
    stored = read_pickled_dict(path).get("audio")
    if stored is None or stored.ndim != 3 or stored.shape[0] != 1 or not stored.size:
        got = "nothing of that name" if stored is None else str(list(stored.shape))
        raise VisxpError(
            f"{os.fspath(path)!r} must have an array [1, bands, frames] named "
            f"'audio', got {got}."
        )
    with np.errstate(over="ignore"):  # to infinity, which is refused
        values = stored[0].astype(np.float32)
    if not np.isfinite(values).all():
        raise VisxpError(f"{os.fspath(path)!r} must be finite, got NaN or infinity.")
    return values


def _why(got: tuple[int, ...], want: tuple[int, ...]) -> str:
    if got[0] != want[0]:
        return "another number of bands"
    if got[1] < want[1]:
        return "the window reaches over the end of the sound, or windows are longer"
    return "windows are padded at both ends"
