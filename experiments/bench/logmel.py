"""Log-mel spectrograms: preset 'visxp' beside python_speech_features, one second each.

    python -m experiments.bench.logmel

Goal: at least 3 times python_speech_features. Floor: the Fourier transforms alone, in
float32, of frames that are already cut and filled up.
"""

import numpy as np
import python_speech_features
from threadpoolctl import threadpool_limits

from experiments.bench.measure import arguments, as_json, finish, interleaved, table
from visxp_jax.audio.spectrogram import PRESETS

CLIPS = 64
PEER = "python_speech_features"
OURS = "visxp_jax"
FLOOR = "floor: rfft alone"


def main() -> None:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    preset = PRESETS["visxp"]
    rng = np.random.default_rng(0)
    samples = rng.integers(-20_000, 20_000, (CLIPS, preset.rate_hz)).astype(np.int16)
    wave = samples.astype(np.float32) / 32_768
    shape = (preset.frames, preset.n_fft)
    frames = rng.normal(size=shape).astype(np.float32)

    def peer(clip: np.ndarray) -> np.ndarray:
        features = python_speech_features.logfbank(
            clip, preset.rate_hz, winlen=0.02, winstep=0.01, nfilt=257, nfft=1024
        )
        return ((features - preset.mean) / preset.std).T

    # The rival's matrix product would spread over the cores, and gain nothing by it.
    with threadpool_limits(1):
        rates = interleaved(
            {
                PEER: lambda: [peer(clip) for clip in samples],
                OURS: lambda: preset.log_mel(wave),
                FLOOR: lambda: [np.fft.rfft(frames) for _ in range(CLIPS)],
            },
            units=dict.fromkeys((PEER, OURS, FLOOR), CLIPS),
            reference=PEER,
            rounds=args.rounds,
        )
    error = max(
        float(np.abs(peer(clip) - ours).max())
        for clip, ours in zip(samples, preset.log_mel(wave), strict=True)
    )
    share = rates[OURS].per_s / rates[FLOOR].per_s
    print(table("log-mel 257 x 99, one core", "clips/s", rates, PEER))
    print(f"  share of the floor: {share:.0%}; largest difference: {error:.1e}")
    figures = {"rates": as_json(rates), "share_of_floor": share, "max_error": error}
    finish(args.out, "logmel", figures)


if __name__ == "__main__":
    main()
