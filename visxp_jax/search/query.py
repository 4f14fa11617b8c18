"""What to search for: a picture, a sound, or a second of a video, as vectors."""

import os
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageOps, UnidentifiedImageError

from visxp_jax.audio.spectrogram import Spectrogram
from visxp_jax.container import MAX_PIXELS, MediaError, opened
from visxp_jax.errors import VisxpError
from visxp_jax.media import read_clips
from visxp_jax.tracks import SoundTrack
from visxp_jax.weights import Trained

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SOUNDS = (".wav", ".mp3", ".flac", ".aac", ".m4a", ".ogg", ".oga", ".opus", ".aiff")
MIN_SOUND_SHARE = 0.5  # of a second, to be searched by


def vectors_of(trained: Trained, path: Path, at_s: float) -> dict[str, np.ndarray]:
    """What can be seen and heard in a file, float32 [d] by 'video' and 'audio'.

    Args:
        trained: From `load_weights`.
        path: Of a picture, a sound or a video.
        at_s: In the second that this time is in; of no meaning for pictures.

    Raises:
        VisxpError: the file cannot be used, or ends before.
    """
    encoder = trained.encoder
    frame, log_mel = None, None
    if path.suffix.lower() in PICTURES:
        frame = read_picture(path, encoder.size_px)
    elif path.suffix.lower() in SOUNDS:
        log_mel = trained.spectrogram.log_mel(
            read_sound(path, int(at_s), trained.spectrogram)
        )
    else:
        clips = read_clips(
            path, size_px=encoder.size_px, spectrogram=trained.spectrogram
        )
        for clip in clips:
            if clip.start_s <= at_s < clip.end_s:
                frame = clip.frame
                log_mel = clip.log_mel if clip.has_audio else None
                break
        if frame is None:
            raise MediaError(path, f"no whole second at {at_s:g} s")
    return encoded(trained, frame, log_mel)


def encoded(
    trained: Trained, frame: np.ndarray | None, log_mel: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Vectors of what there is of one clip.

    Args:
        trained: From `load_weights`.
        frame: uint8 [h, w, 3].
        log_mel: float32 [m, f].
    """
    size = trained.encoder.size_px
    there = {"video": frame is not None, "audio": log_mel is not None}
    if frame is None:
        frame = np.zeros((size, size, 3), np.uint8)
    if log_mel is None:
        log_mel = np.zeros(trained.spectrogram.shape, np.float32)
    # As stored for training and extraction.
    sound = log_mel.astype(np.float16)
    embed = jax.jit(trained.model.embed, static_argnames="train")
    (video, audio), _ = embed(
        trained.params, trained.model_state, frame[None], sound[None], train=False
    )
    found = {"video": np.asarray(video)[0], "audio": np.asarray(audio)[0]}
    return {name: x for name, x in found.items() if there[name]}


def read_picture(path: Path, size_px: int) -> np.ndarray:
    """A picture upright, uint8 [size_px, size_px, 3], whatever its aspect was.

    Raises:
        VisxpError: it is no picture, or over a limit.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise VisxpError(
                    f"{os.fspath(path)!r} must have at most {MAX_PIXELS:,} pixels, got "
                    f"{image.width} x {image.height}."
                )
            rgb = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise VisxpError(f"{os.fspath(path)!r} must be a picture: {error}.") from error
    return np.array(rgb.resize((size_px, size_px), Image.Resampling.BILINEAR))


def read_sound(path: Path, second: int, spectrogram: Spectrogram) -> np.ndarray:
    """One second of a sound file, float32 [rate] in [-1, 1]; zeros after its end.

    Args:
        path: Of the file; it need not have pictures.
        second: Counted from the first sample.
        spectrogram: That it is for.

    Raises:
        MediaError: it cannot be opened, has no sound, or less than half of that second.
    """
    with opened(path) as container:
        stream = container.streams.best("audio")
        if stream is None or stream.codec_context is None:
            raise MediaError(path, "no sound")
        base = Fraction(stream.time_base or 0)
        track = SoundTrack(
            rate_hz=spectrogram.rate_hz, start_s=(stream.start_time or 0) * base
        )
        passed = 0
        try:
            for packet in container.demux(stream):
                try:
                    track.decode(packet)
                except (FFmpegError, ValueError):
                    track.fault()
                while passed < second and passed + 1 <= track.position_s:
                    track.take(passed)
                    passed += 1
                if track.position_s >= second + 1:
                    break
        except FFmpegError:
            track.fault()  # of the container: what was read counts
        track.finish()
        wave, filled = track.take(second)
    if filled < MIN_SOUND_SHARE * spectrogram.rate_hz:
        raise MediaError(path, f"no second of sound at {second} s")
    return wave.astype(np.float32) / 32_768
