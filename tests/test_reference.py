"""Another pipeline's spectrogram is compared, and what it does otherwise is named.

The other pipeline is PyAV's decoder and resampler by themselves, and VisXP's own tool
for spectrograms, python_speech_features.
"""

from collections.abc import Callable
from fractions import Fraction

import av
import librosa
import numpy as np
import pytest
from python_speech_features import base, sigproc
from scipy.signal import get_window

from tests.videos import tones, write_programmes, write_video
from visxp_jax.audio.spectrogram import VISXP_RATES_HZ
from visxp_jax.decode import copied
from visxp_jax.errors import VisxpError
from visxp_jax.production.arrays import pickled_dict
from visxp_jax.reference import AS_ROUNDING, compare

MIDDLE_MS = 2500
EPS = np.finfo(np.float64).eps
RATE_HZ = 44_100  # of the file
Wave = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Compressed noise: each side has some of its own, and the second stream others."""
    path = tmp_path_factory.mktemp("reference") / "noise.mp4"
    rng = np.random.default_rng(0)
    both = 0.2 * rng.standard_normal(5 * RATE_HZ)
    sides = both + 0.1 * rng.standard_normal((2, len(both)))
    alone = 0.2 * rng.standard_normal((1, len(both)))
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        streams = [
            (container.add_stream("aac", rate=RATE_HZ, layout="stereo"), sides),
            (container.add_stream("aac", rate=RATE_HZ, layout="mono"), alone),
        ]
        for _ in range(50):
            container.mux(pictures.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(pictures.encode(None))
        for stream, wave in streams:
            frame = av.AudioFrame.from_ndarray(
                wave.astype(np.float32), "fltp", stream.layout.name
            )
            frame.rate = RATE_HZ
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def wave(video) -> Wave:
    """Makes int16 [rate_hz], one second of a stream or of one of its channels."""

    def decoded(rate_hz=24_000, late=0, *, channel=None, stream=0):
        with av.open(str(video)) as container:
            layout = "mono" if channel is None else "stereo"
            resampler = av.AudioResampler("s16p", layout, rate_hz)
            frames = list(container.decode(audio=stream))
            assert frames[0].pts == 0
            pieces = [r for frame in [*frames, None] for r in resampler.resample(frame)]
        whole = np.concatenate([p.to_ndarray()[channel or 0] for p in pieces])
        begin = (MIDDLE_MS - 500) * rate_hz // 1000 + late
        return whole[begin : begin + rate_hz]

    return decoded


def energies(wave, rate_hz=24_000, *, window=None, **changed):
    """[frames, bands], as VisXP's code calls it but for what is changed."""
    recipe = {"winlen": 0.02, "winstep": 0.01, "nfilt": 257, "nfft": 1024, **changed}
    ones = np.ones if window is None else window
    return base.fbank(wave, rate_hz, winfunc=ones, **recipe)[0]


def normalised(log_energies):
    return (log_energies.T - 1.93) / 17.89


def recipe(wave, rate_hz=24_000, **changed):
    """What VisXP stores."""
    return normalised(np.log(np.maximum(energies(wave, rate_hz, **changed), EPS)))


def log10(wave):
    return np.log10(np.maximum(energies(wave), EPS))


def slaney(wave):
    """The power by python_speech_features, the filters by librosa."""
    frames = sigproc.framesig(sigproc.preemphasis(wave, 0.97), 480, 240)
    bank = librosa.filters.mel(sr=24_000, n_fft=1024, n_mels=257)
    power = sigproc.powspec(frames, 1024) @ bank.T
    return normalised(np.log(np.maximum(power, EPS)))


def hann(samples):
    return get_window("hann", samples)


ALTERED = {
    "values are not normalised": lambda w: recipe(w()) * 17.89 + 1.93,
    "values are normalised twice": lambda w: (recipe(w()) - 0.0467) / 0.9170,
    "log10": lambda w: normalised(log10(w())),
    "decibels": lambda w: normalised(10 * log10(w())),
    "samples in [-1, 1]": lambda w: recipe(w() / 32_768),
    "pre-emphasis of 0 ": lambda w: recipe(w(), preemph=0),
    "pre-emphasis of 0.95": lambda w: recipe(w(), preemph=0.95),
    "a Hann window": lambda w: recipe(w(), window=hann),
    "librosa's mel filters": lambda w: slaney(w()),
    "an FFT of 512": lambda w: recipe(w(), nfft=512),
    "an FFT of 2048": lambda w: recipe(w(), nfft=2048),
    "windows of 25 ms": lambda w: recipe(w(), winlen=0.025),
    "windows of 32 ms": lambda w: recipe(w(), winlen=0.032),
    "frames are centred": lambda w: recipe(np.pad(w(), 240)),
    "bands from 0 to 8000 Hz": lambda w: recipe(w(), highfreq=8000),
    "bands from 20 to 12000 Hz": lambda w: recipe(w(), lowfreq=20),
    "bands from 125 to 7500 Hz": lambda w: recipe(w(), lowfreq=125, highfreq=7500),
    "sound of 48000 Hz": lambda w: recipe(w(48_000)[:24_000]),
    "the whole recipe at 16000 Hz": lambda w: recipe(w(16_000), 16_000),
    "the whole recipe at 22050 Hz": lambda w: recipe(w(22_050), 22_050),
    "the left channel": lambda w: recipe(w(channel=0)),
    "the right channel": lambda w: recipe(w(channel=1)),
    "audio stream 2 of the file": lambda w: recipe(w(stream=1)),
    "the second begins 3 ms later": lambda w: recipe(w(late=72)),
    "the second begins 11 ms earlier": lambda w: recipe(w(late=-264)),
    "the second begins 0.04167 ms later": lambda w: recipe(w(late=1)),
    "the second begins 700 ms later": lambda w: recipe(w(late=16_800)),
    "the second begins 1496 ms later": lambda w: recipe(w(late=35_904)),
    "the second begins 2000 ms earlier": lambda w: recipe(w(late=-48_000)),
}


def stored(video, values, rate_hz=24_000):
    path = video.with_name(f"{MIDDLE_MS}_{rate_hz}.npz")
    path.write_bytes(pickled_dict({"audio": values[None].astype(np.float32)}))
    return path


@pytest.mark.parametrize(
    "rate_hz", [VISXP_RATES_HZ[0], 24_000, 48_000, VISXP_RATES_HZ[-1]]
)
def test_visxps_own_spectrogram_is_equal(rate_hz, video, wave):
    path = stored(video, recipe(wave(rate_hz), rate_hz), rate_hz)
    (line,) = compare(video, path)
    assert line.startswith("equal: largest ")
    assert line.endswith("(limit of the largest 0.005)")
    path = stored(video, recipe(wave(rate_hz), rate_hz, window=hann), rate_hz)
    assert "because a Hann window in place of none" in compare(video, path)[0]


@pytest.mark.parametrize("name", ALTERED)
def test_what_is_altered_is_named(name, video, wave):
    line, *_ = compare(video, stored(video, ALTERED[name](wave)))
    assert line.startswith("differs: largest ")
    assert f"; because {name}" in line
    assert AS_ROUNDING not in line


def test_what_no_single_setting_explains_is_said(video, wave):
    half = stored(video, recipe(wave(), window=hann) * 17.89 + 1.93)
    (line,) = compare(video, half)
    assert "no single setting explains it; nearest: values are not normalised" in line
    strange = np.random.default_rng(1).normal(0, 3000, 24_000)
    for other in (strange, wave() + strange):
        (line,) = compare(video, stored(video, recipe(other)))
        assert line.endswith("; no single setting explains it")


def test_rounding_is_told_from_the_rest(video, wave):
    rounding = np.random.default_rng(1).integers(-4, 5, 24_000)
    (line,) = compare(video, stored(video, recipe(wave() + rounding)))
    assert line.startswith("differs: ")
    assert line.endswith(f"; {AS_ROUNDING}")
    left = wave(channel=0)
    (line,) = compare(video, stored(video, recipe(left + rounding)))
    assert "because the left channel in place of the mix (then largest 0.0" in line
    assert line.endswith(f": {AS_ROUNDING})")


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((257, 66), "over the end of the sound"),
        ((257, 101), "padded at both ends"),
        ((80, 99), "another number of bands"),
    ],
)
def test_other_shapes_are_explained(shape, why, video):
    line, told = compare(video, stored(video, np.full(shape, 3e38)))
    assert line.startswith("differs: ")
    assert why in told


def test_a_second_without_sound_is_compared_with_other_streams_only(tmp_path):
    silent = {"sound": tones(1.5, 24_000), "seconds": 4.0}
    path = write_video(tmp_path / "x.mkv", **silent, audio_codec="pcm_s16le")
    strange = np.random.default_rng(1).normal(0, 3000, 24_000)
    with pytest.raises(VisxpError, match="must have sound at 2.5 s, but has none"):
        compare(path, stored(path, recipe(strange)))
    path = write_programmes(tmp_path / "x.ts", {"sound": None}, {})
    with av.open(str(path)) as container:
        pieces = [piece.to_ndarray()[0] for piece in container.decode(audio=0)]
    whole = (np.concatenate(pieces) * 32_768).round()
    begin = 2 * 24_000
    line, note = compare(path, stored(path, recipe(whole[begin : begin + 24_000])))
    assert "because audio stream 2 of the file in place of the one taken" in line
    assert note == "the video has sound for 0% of that second"


@pytest.mark.parametrize("form", ["fltp", "flt"])
def test_one_channel_is_copied(form):
    sides = np.arange(6, dtype=np.float32).reshape(2, 3)
    packed = sides.T.reshape(1, 6)
    laid = sides if form == "fltp" else packed
    frame = av.AudioFrame.from_ndarray(laid, form, "stereo")
    frame.sample_rate, frame.pts, frame.time_base = 8_000, 5, Fraction(1, 8_000)
    for channel, side in (
        (None, packed),
        (0, sides[:1]),
        (1, sides[1:]),
        (7, sides[1:]),
    ):
        copy = copied(frame, channel)
        np.testing.assert_array_equal(copy.to_ndarray(), side)
        assert (copy.sample_rate, copy.pts, copy.samples) == (8_000, 5, 3)
