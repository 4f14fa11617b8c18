import librosa
import numpy as np
import pytest
from python_speech_features import logfbank

from visxp_jax.audio.spectrogram import PRESETS


def waves(rate_hz: int) -> dict[str, np.ndarray]:
    """Seconds of int16-valued sound, in [-1, 1]."""
    rng = np.random.default_rng(0)
    time_s = np.arange(rate_hz) / rate_hz
    sweep = np.sin(2 * np.pi * (100 + 2000 * time_s) * time_s)
    found = {
        "noise": rng.uniform(-1, 1, rate_hz),
        "sweep": 0.6 * sweep,
        "quiet": rng.normal(0, 3 / 32_768, rate_hz),
        "clicks": np.where(rng.random(rate_hz) < 1e-3, 0.9, 0.0),
        "half silent": np.where(time_s < 0.5, 0.0, 0.3 * sweep),
        "silence": np.zeros(rate_hz),
        "loud": np.sign(sweep) * 0.999,
    }
    return {k: (np.round(v * 32_767) / 32_768).astype("f4") for k, v in found.items()}


@pytest.mark.parametrize("name", list(waves(10)))
def test_visxp_equals_python_speech_features(name):
    wave = waves(24_000)[name]
    expected = logfbank(
        np.round(wave * 32_768).astype(np.int16),
        24_000,
        winlen=0.02,
        winstep=0.01,
        nfilt=257,
        nfft=1024,
        preemph=0.97,
    )
    got = PRESETS["visxp"].log_mel(wave)
    assert got.shape == (257, 99)
    assert got.dtype == np.float32
    # Below its floor, where sums cancel, the original hands out rounding noise.
    expected = np.maximum(expected.T, np.log(np.finfo(np.float64).eps))
    np.testing.assert_allclose(got, (expected - 1.93) / 17.89, atol=1e-5)


def test_mel_equals_librosa():
    preset = PRESETS["mel"]
    wave = waves(preset.rate_hz)["sweep"]
    # librosa puts the window into the middle of n_fft samples, hence 56 zeros.
    power = librosa.feature.melspectrogram(
        y=np.pad(wave, 56),
        sr=preset.rate_hz,
        n_fft=512,
        hop_length=164,
        win_length=400,
        window="hann",
        center=False,
        n_mels=64,
    )[:, :96]
    expected = np.log(np.maximum(power / 512, preset.floor))
    np.testing.assert_allclose(
        preset.log_mel(wave), (expected - preset.mean) / preset.std, atol=2e-3
    )


def test_l3net_tone_peaks_in_its_bin():
    preset = PRESETS["l3net"]
    tone = 0.5 * np.sin(
        2 * np.pi * 100 * preset.rate_hz / 512 * np.arange(48_000) / 48e3
    )
    got = preset.log_mel(tone.astype(np.float32))
    assert got.shape == (257, 200)
    assert np.all(got.argmax(axis=0) == 100)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=str)
def test_silence_is_one_value(preset):
    got = preset.log_mel(np.zeros(preset.rate_hz, np.float32))
    assert got.shape == preset.shape
    np.testing.assert_allclose(got, preset.silence, rtol=1e-5)
    assert np.isfinite(got.astype(np.float16)).all()


def test_visxp_has_the_published_empty_bands():
    noise = waves(24_000)["noise"]
    empty = np.all(
        np.isclose(PRESETS["visxp"].log_mel(noise), PRESETS["visxp"].silence), axis=1
    )
    assert empty.sum() == 38


@pytest.mark.parametrize("preset", PRESETS.values(), ids=str)
def test_twice_as_loud_is_ln_4_more(preset):
    noise = waves(preset.rate_hz)["noise"]
    soft, loud = preset.log_mel(noise / 4), preset.log_mel(noise / 2)
    heard = soft > preset.silence + 0.1
    assert heard.mean() > 0.8
    np.testing.assert_allclose(
        (loud - soft)[heard], np.log(4) / preset.std, rtol=1e-2, atol=1e-4
    )


@pytest.mark.parametrize("preset", PRESETS.values(), ids=str)
def test_batch_is_clips_one_by_one(preset):
    batch = np.stack(list(waves(preset.rate_hz).values()))
    together = preset.log_mel(batch)
    assert together.shape == (len(batch), *preset.shape)
    for wave, row in zip(batch, together, strict=True):
        np.testing.assert_array_equal(preset.log_mel(wave), row)


def test_input_is_left_as_it_was():
    wave = waves(24_000)["noise"]
    before = wave.copy()
    PRESETS["visxp"].log_mel(wave)
    np.testing.assert_array_equal(wave, before)


@pytest.mark.parametrize(
    "shape", [(23_999,), (24_001,), (2, 16_000), (), (1, 1, 24_000)]
)
def test_wrong_length_is_refused_with_both_lengths(shape):
    with pytest.raises(ValueError, match="24000.*got") as refusal:
        PRESETS["visxp"].log_mel(np.zeros(shape, np.float32))
    assert str(list(shape)) in str(refusal.value)
