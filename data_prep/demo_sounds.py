"""The sounds of the demo videos: one timbre per family, one gesture per kind.

A gesture is what comes again and again: how pitch and loudness run over a cycle. A
timbre is what plays it. Base pitch, loudness, noise, stray tones and the tilt of the
spectrum are nuisance.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_prep.demo_pictures import cut_times

Curve = Callable[[np.ndarray], np.ndarray]
Timbre = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


class Voice(NamedTuple):
    """How a kind sounds.

    Attributes:
        timbre: From pitch (Hz, per sample), rate (Hz) and chance to a wave.
        pitch_hz: Range of the base pitch.
        cycle_hz: Cycles of the gesture per second.
        octaves: Pitch above the base at a position (0 to 1) in the cycle.
        loudness: Amplitude (0 to 1) at a position in the cycle.
    """

    timbre: Timbre
    pitch_hz: tuple[float, float]
    cycle_hz: float
    octaves: Curve
    loudness: Curve


def _partials(
    pitch_hz: np.ndarray, rate_hz: int, ratios: np.ndarray, amplitudes: np.ndarray
) -> np.ndarray:
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    below_nyquist = ratios * pitch_hz.max() < 0.45 * rate_hz
    wave = np.zeros_like(phase)
    for ratio, amplitude in zip(
        ratios[below_nyquist], amplitudes[below_nyquist], strict=True
    ):
        wave += amplitude * np.sin(ratio * phase + ratio**2)
    return wave


def _struck(pitch_hz: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """A free bar: partials far apart and out of tune."""
    ratios = np.array([1.0, 2.76, 5.40, 8.93])
    return _partials(pitch_hz, rate_hz, ratios, np.array([1.0, 0.8, 0.6, 0.4]))


def _reed(pitch_hz: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """A few harmonics."""
    ratios = np.arange(1.0, 6.0)
    return _partials(pitch_hz, rate_hz, ratios, 1 / ratios)


def _buzz(pitch_hz: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Harmonics so dense that they melt into one band."""
    ratios = np.arange(1.0, 25.0)
    return _partials(pitch_hz, rate_hz, ratios, ratios**-0.5)


def _whistle(
    pitch_hz: np.ndarray, rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """One pure tone."""
    return _partials(pitch_hz, rate_hz, np.ones(1), np.ones(1))


def _breath(pitch_hz: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """A band of noise about the pitch, a third of an octave to each side."""
    count = len(pitch_hz)
    offset_hz = np.fft.fftfreq(count, 1 / rate_hz)
    width_hz = 0.2 * pitch_hz.mean()
    noise = rng.normal(size=count) + 1j * rng.normal(size=count)
    slow = np.fft.ifft(noise * np.exp(-0.5 * (offset_hz / width_hz) ** 2))
    slow /= np.sqrt(np.mean(np.abs(slow) ** 2))
    return np.real(slow * np.exp(2j * np.pi * np.cumsum(pitch_hz) / rate_hz))


def _level(cycle: np.ndarray) -> np.ndarray:
    return np.zeros_like(cycle)


def _steady(cycle: np.ndarray) -> np.ndarray:
    return np.ones_like(cycle)


def _up(cycle: np.ndarray) -> np.ndarray:
    return 1.3 * cycle


def _down(cycle: np.ndarray) -> np.ndarray:
    return 1.3 * (1 - cycle)


def _weave(cycle: np.ndarray) -> np.ndarray:
    return 0.6 * np.sin(2 * np.pi * cycle)


def _step(cycle: np.ndarray) -> np.ndarray:
    return np.where(cycle < 0.5, 0.0, 1.0)


def _arch(cycle: np.ndarray) -> np.ndarray:
    return 1.5 * np.sin(np.pi * cycle)


def _strike(cycle: np.ndarray) -> np.ndarray:
    return np.exp(-4 * cycle)


def _two_strikes(cycle: np.ndarray) -> np.ndarray:
    return np.exp(-4 * np.mod(2 * cycle, 1))


def _three_strikes(cycle: np.ndarray) -> np.ndarray:
    return np.exp(-3 * np.mod(3 * cycle, 1))


def _stairs(cycle: np.ndarray) -> np.ndarray:
    return 0.6 * np.floor(3 * cycle)


def _pulse(cycle: np.ndarray) -> np.ndarray:
    return np.sin(np.pi * np.minimum(cycle / 0.55, 1)) ** 0.7


def _chirp_up(cycle: np.ndarray) -> np.ndarray:
    return 1.3 * np.minimum(cycle / 0.55, 1)


def _chirp_down(cycle: np.ndarray) -> np.ndarray:
    return 1.3 - _chirp_up(cycle)


VOICES: dict[str, Voice] = {
    "bell/toll": Voice(_struck, (200, 800), 2.2, _level, _strike),
    "bell/peal": Voice(_struck, (200, 800), 2.5, _step, _two_strikes),
    "bell/roll": Voice(_struck, (200, 800), 11.0, _level, _strike),
    "bell/chime": Voice(_struck, (200, 600), 2.0, _stairs, _three_strikes),
    "siren/rise": Voice(_reed, (200, 1000), 2.2, _up, _steady),
    "siren/fall": Voice(_reed, (200, 1000), 2.2, _down, _steady),
    "siren/wail": Voice(_reed, (200, 1000), 3.2, _weave, _steady),
    "siren/yelp": Voice(_reed, (200, 1000), 2.2, _step, _steady),
    "motor/hum": Voice(_buzz, (70, 300), 1.0, _level, _steady),
    "motor/putter": Voice(_buzz, (70, 300), 7.0, _level, _pulse),
    "motor/rev": Voice(_buzz, (70, 300), 2.2, _up, _steady),
    "motor/brake": Voice(_buzz, (70, 300), 2.2, _down, _steady),
    "wind/hiss": Voice(_breath, (400, 3000), 1.0, _level, _steady),
    "wind/gust": Voice(_breath, (400, 2000), 2.2, _arch, _steady),
    "wind/scrub": Voice(_breath, (400, 2000), 2.8, _step, _steady),
    "wind/spray": Voice(_breath, (400, 3000), 8.0, _level, _pulse),
    "bird/tweet": Voice(_whistle, (500, 2500), 5.0, _chirp_up, _pulse),
    "bird/coo": Voice(_whistle, (500, 2500), 5.0, _chirp_down, _pulse),
    "bird/trill": Voice(_whistle, (500, 4000), 13.0, _level, _pulse),
    "bird/warble": Voice(_whistle, (500, 3500), 6.5, _weave, _steady),
}


def _noise(count: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit power whose density goes with frequency to a random exponent."""
    frequency = np.fft.rfftfreq(count, 1 / rate_hz)
    slope = rng.uniform(-1.0, 0.2)
    spectrum = np.fft.rfft(rng.normal(size=count)) * (frequency + 50) ** slope
    wave = np.fft.irfft(spectrum, count)
    return wave / np.sqrt(np.mean(wave**2))


def _stray_tones(count: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """None to two steady pure tones, each -24 to -10 dB."""
    time_s = np.arange(count) / rate_hz
    wave = np.zeros(count)
    for _ in range(rng.integers(0, 3)):
        tone_hz = 150 * 2 ** rng.uniform(0, 5)
        gain = 10 ** (rng.uniform(-24, -10) / 20)
        wave += gain * np.sin(2 * np.pi * tone_hz * time_s + rng.uniform(0, 6.3))
    return wave


def _tilt(wave: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Another microphone and room: up to 4 dB an octave for or against the treble."""
    frequency_hz = np.maximum(np.fft.rfftfreq(len(wave), 1 / rate_hz), 60)
    gain_db = rng.uniform(-4, 4) * np.log2(frequency_hz / 1000)
    return np.fft.irfft(np.fft.rfft(wave) * 10 ** (gain_db / 20), len(wave))


def _stretch(
    voice: Voice, cycle: np.ndarray, rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """The wave between two cuts: one draw of the nuisance."""
    count = len(cycle)
    low, high = np.log(voice.pitch_hz)
    base_hz = np.exp(rng.uniform(low, high))
    wave = voice.timbre(base_hz * 2 ** voice.octaves(cycle), rate_hz, rng)
    wave = wave * voice.loudness(cycle)
    wave /= np.sqrt(np.mean(wave**2)) + 1e-9
    wave += 10 ** (rng.uniform(-26, -8) / 20) * _noise(count, rate_hz, rng)
    wave += _stray_tones(count, rate_hz, rng)
    wave = _tilt(wave, rate_hz, rng)
    fade = np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.005 * rate_hz)
    gain = 10 ** (rng.uniform(-20, 0) / 20)
    return wave * np.minimum(fade, 1) * gain / np.abs(wave).max()


def render_sound(
    kind: str, seconds: float, *, rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """The sound of one demo video.

    Timbre and gesture follow the kind; base pitch, loudness (-20 to 0 dB of full
    scale), coloured noise, stray tones and spectral tilt are drawn anew at every cut.

    Args:
        kind: A key of `VOICES`.
        seconds: Length.
        rate_hz: Samples per second.
        rng: Source of chance.

    Returns:
        float32, mono, in [-1, 1], [round(seconds * rate_hz)].
    """
    voice = VOICES[kind]
    count = round(seconds * rate_hz)
    tempo_hz = voice.cycle_hz * np.exp(rng.uniform(-0.1, 0.1))
    cycle = np.mod(np.arange(count) / rate_hz * tempo_hz + rng.uniform(), 1)
    cuts = np.rint(cut_times(seconds, rng=rng)[1:] * rate_hz).astype(int)
    parts = [_stretch(voice, part, rate_hz, rng) for part in np.split(cycle, cuts)]
    return np.concatenate(parts).astype(np.float32)
