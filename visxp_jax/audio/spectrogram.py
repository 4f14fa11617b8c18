"""Log spectrograms of one second of sound; the only implementation in the project.

Preparation, extraction and tests all use it, so training and use cannot drift apart.
A preset fixes every choice; its name is stored with prepared data and with weights.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

# Late, as librosa: half of what it takes to start a command that hears nothing.
if TYPE_CHECKING:
    from scipy import sparse

_FULL_SCALE = 32_768.0  # int16


@dataclass(frozen=True)
class Spectrogram:
    """A recipe: frames -> power spectrum -> bands -> natural log -> normalised.

    Attributes:
        name: Key in `PRESETS`.
        rate_hz: Samples per second; a clip is exactly that many samples.
        window: Shape of the window over each frame.
        window_samples: Samples in a frame.
        hop_samples: From one frame to the next.
        pad_samples: Zeros put before the first sample.
        n_fft: Length of the Fourier transform; frames are filled up with zeros.
        bank: How the n_fft // 2 + 1 bins become bands. 'htk_bins': triangles between
            whole bins on the HTK mel scale, some of them empty; 'mel': librosa's mel
            filters; 'linear': the bins themselves.
        bands: Number of bands.
        frames: Number of frames; zeros follow the last sample where it takes them.
        pre_emphasis: x[i] - pre_emphasis * x[i - 1]; 0 for none.
        sample_scale: Full scale of the samples the recipe was made for: 32768 for
            int16 samples, 1 for [-1, 1].
        floor: Smallest power before the log.
        mean: Subtracted from the log, ...
        std: ... which is then divided by this.
        low_hz: Where the lowest band begins, ...
        high_hz: ... and the highest ends, of all banks but 'linear'; None for half the
            rate.
    """

    name: str
    rate_hz: int
    window: Literal["boxcar", "hann"]
    window_samples: int
    hop_samples: int
    pad_samples: int
    n_fft: int
    bank: Literal["htk_bins", "mel", "linear"]
    bands: int
    frames: int
    pre_emphasis: float
    sample_scale: float
    floor: float
    mean: float
    std: float
    low_hz: float = 0.0
    high_hz: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(bands, frames) of one clip."""
        return self.bands, self.frames

    @property
    def silence(self) -> float:
        """The value of every band and frame of a silent clip."""
        return (float(np.log(self.floor)) - self.mean) / self.std

    @property
    def empty_bands(self) -> np.ndarray:
        """Bands that no bin feeds, bool [bands]: `silence` whatever the sound is."""
        return np.diff(self._bank.indptr) == 0

    def log_mel(self, wave: np.ndarray) -> np.ndarray:
        """Normalised log spectrogram of one second of sound, or of a batch of seconds.

        Args:
            wave: Mono, float32 [samples] or [b, samples] in [-1, 1], `rate_hz` samples
                per clip.

        Returns:
            float32 [bands, frames] or [b, bands, frames]: (natural log of power, at
            least `floor`, minus `mean`) / `std`, no unit. Frame i starts at sample
            i * hop_samples - pad_samples.

        Raises:
            ValueError: a clip is not exactly one second, or is neither one clip nor a
                batch of them.

        Source: 'visxp' repeats the published VisXP recipe, which is
        python_speech_features' logfbank on int16 samples (20 ms, 10 ms, 1024, 257).
        """
        wave = np.asarray(wave, np.float32)
        if wave.ndim not in (1, 2) or wave.shape[-1] != self.rate_hz:
            raise ValueError(
                f"preset {self.name!r} takes [{self.rate_hz}] samples (1 s at "
                f"{self.rate_hz} Hz) or [b, {self.rate_hz}], got {list(wave.shape)}; "
                "resample, and cut or fill up with zeros."
            )
        if wave.ndim == 1:
            return self._one(wave)
        # One clip at a time: its spectra then stay in the processor's cache.
        out = np.empty((len(wave), *self.shape), np.float32)
        for i, clip in enumerate(wave):
            out[i] = self._one(clip)
        return out

    def _one(self, wave: np.ndarray) -> np.ndarray:
        # float64 up to the power: where bands nearly cancel, float32 leaves noise.
        samples = wave.astype(np.float64) * self.sample_scale
        if self.pre_emphasis:
            samples[1:] -= self.pre_emphasis * samples[:-1].copy()
        length = (self.frames - 1) * self.hop_samples + self.window_samples
        padded = np.zeros(length)
        kept = min(len(samples), length - self.pad_samples)
        padded[self.pad_samples : self.pad_samples + kept] = samples[:kept]
        framed = np.lib.stride_tricks.sliding_window_view(padded, self.window_samples)
        framed = framed[:: self.hop_samples]
        if self.window != "boxcar":
            framed = framed * self._window
        spectrum: Any = np.fft.rfft(framed, self.n_fft)
        power = (spectrum.real**2 + spectrum.imag**2).T
        banded = self._bank @ power.astype(np.float32, order="C")
        np.maximum(banded, np.float32(self.floor), out=banded)
        np.log(banded, out=banded)
        banded -= np.float32(self.mean)
        banded /= np.float32(self.std)
        return banded

    @cached_property
    def _window(self) -> np.ndarray:
        # The periodic Hann window, as librosa's.
        i = np.arange(self.window_samples) / self.window_samples
        return 0.5 - 0.5 * np.cos(2 * np.pi * i)

    @cached_property
    def _bank(self) -> "sparse.csr_array":
        """[bands, bins], 1 / n_fft included; each bin feeds two bands at most."""
        from scipy import sparse

        bins = self.n_fft // 2 + 1
        high_hz = self.rate_hz / 2 if self.high_hz is None else self.high_hz
        if self.bank == "linear":
            weights = np.eye(self.bands, bins)
        elif self.bank == "mel":
            import librosa.filters  # late: loading it takes a second

            weights = librosa.filters.mel(
                sr=self.rate_hz,
                n_fft=self.n_fft,
                n_mels=self.bands,
                fmin=self.low_hz,
                fmax=high_hz,
            )
        else:
            weights = _htk_bins_bank(
                self.rate_hz, self.n_fft, self.bands, self.low_hz, high_hz
            )
        return sparse.csr_array((weights / self.n_fft).astype(np.float32))


def _htk_bins_bank(
    rate_hz: int, n_fft: int, bands: int, low_hz: float, high_hz: float
) -> np.ndarray:
    """Triangles whose corners are rounded down to whole bins, [bands, bins].

    Where two corners share a bin the triangle has no area: at 24 kHz 38 of 257 bands
    are always empty. Published weights were trained on that.
    """
    low_mel, top_mel = (2595 * np.log10(1 + hz / 700) for hz in (low_hz, high_hz))
    mels = np.linspace(low_mel, top_mel, bands + 2)
    corners = np.floor((n_fft + 1) * 700 * (10 ** (mels / 2595) - 1) / rate_hz)
    low, peak, high = (corners[i : i + bands, None] for i in range(3))
    bins = np.arange(n_fft // 2 + 1)
    rising = (bins - low) / np.maximum(peak - low, 1)
    falling = (high - bins) / np.maximum(high - peak, 1)
    inside = (bins >= low) & (bins < high)
    return np.where(inside, np.where(bins < peak, rising, falling), 0.0)


PRESETS: dict[str, Spectrogram] = {
    preset.name: preset
    for preset in (
        # The production recipe. The floor is float64's epsilon, as in the original.
        Spectrogram(
            name="visxp",
            rate_hz=24_000,
            window="boxcar",
            window_samples=480,
            hop_samples=240,
            pad_samples=0,
            n_fft=1024,
            bank="htk_bins",
            bands=257,
            frames=99,
            pre_emphasis=0.97,
            sample_scale=_FULL_SCALE,
            floor=float(np.finfo(np.float64).eps),
            mean=1.93,
            std=17.89,
        ),
        # For new models. 96 whole frames of 25 ms fit into a second without padding,
        # and 64 x 96 halves evenly five times.
        Spectrogram(
            name="mel",
            rate_hz=16_000,
            window="hann",
            window_samples=400,
            hop_samples=164,
            pad_samples=0,
            n_fft=512,
            bank="mel",
            bands=64,
            frames=96,
            pre_emphasis=0.0,
            sample_scale=1.0,
            floor=1e-8,
            mean=-14.2,
            std=3.2,
        ),
        # Look, Listen and Learn (2017): 10 ms windows, half overlapping.
        Spectrogram(
            name="l3net",
            rate_hz=48_000,
            window="hann",
            window_samples=480,
            hop_samples=240,
            pad_samples=120,
            n_fft=512,
            bank="linear",
            bands=257,
            frames=200,
            pre_emphasis=0.0,
            sample_scale=1.0,
            floor=1e-8,
            mean=-15.0,
            std=4.0,
        ),
    )
}


# Windows of 20 ms must be whole samples, and fit into the 1024 of the transform.
VISXP_RATES_HZ = range(8_000, 51_200 + 1, 100)


def visxp_at(rate_hz: int) -> Spectrogram:
    """VisXP's recipe at another rate of `VISXP_RATES_HZ`: 20 ms windows every 10 ms."""
    return dataclasses.replace(
        PRESETS["visxp"],
        rate_hz=rate_hz,
        window_samples=rate_hz // 50,
        hop_samples=rate_hz // 100,
    )
