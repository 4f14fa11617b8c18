"""What to search for: read from a picture, a sound, or a second of a video.

Loads no jax: foreign files are read in worker processes.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageOps

from visxp_jax.audio.spectrogram import Spectrogram
from visxp_jax.container import MediaError, check_file, opened
from visxp_jax.media import MIN_SOUND_SHARE, Clip, read_clips
from visxp_jax.seeking import LEAD_S
from visxp_jax.tracks import SoundTrack

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow's names
SOUNDS = (".wav", ".mp3", ".flac", ".aac", ".m4a", ".ogg", ".oga", ".opus", ".aiff")


class Example(NamedTuple):
    """One second to search by."""

    frame: np.ndarray | None  # uint8 [h, w, 3]
    log_mel: np.ndarray | None  # float32 [m, f]


def read_example(
    path: Path,
    at_s: float,
    *,
    size_px: int,
    spectrogram: Spectrogram,
    on_second: Callable[[], None] = lambda: None,
) -> Example:
    """What can be seen and heard in a file, which its name says the kind of.

    Args:
        path: Of a picture, a sound or a video.
        at_s: In the second that this time is in; of no meaning for pictures.
        size_px: Frames become size_px x size_px.
        spectrogram: Preset for the sound.
        on_second: Called for every second of video passed.

    Raises:
        MediaError: the file cannot be used, or ends before.
    """
    if path.suffix.lower() in PICTURES:
        return Example(read_picture(path, size_px), None)
    if path.suffix.lower() in SOUNDS:
        return Example(
            None, spectrogram.log_mel(read_sound(path, int(at_s), spectrogram))
        )
    second = int(at_s)

    def found(from_s: int) -> Clip | None:
        clips = read_clips(
            path, size_px=size_px, spectrogram=spectrogram, from_s=from_s
        )
        for clip in clips:
            if clip.start_s == second:
                return clip
            on_second()
        return None

    clip = None
    if second > 1:
        with suppress(MediaError):
            clip = found(second - 1)
    if clip is None or clip.partial:  # the whole of it may have more
        clip = found(0)
    if clip is None:
        raise MediaError(path, f"no whole second at {at_s:g} s")
    return Example(clip.frame, clip.log_mel if clip.has_audio else None)


def read_picture(path: Path, size_px: int) -> np.ndarray:
    """A picture upright, uint8 [size_px, size_px, 3], whatever its aspect was.

    Raises:
        MediaError: it is no picture, or over a limit.
    """
    check_file(path)
    over = f"over the limit of {Image.MAX_IMAGE_PIXELS} pixels; use a smaller copy"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=PICTURE_FORMATS)
        with image:
            rgb = ImageOps.exif_transpose(image).convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MediaError(path, over) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(path, "not a readable picture") from error
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
        track.forget(second)
        from_s = float((stream.start_time or 0) * base) + second - LEAD_S
        try:
            for packet in container.demux(stream):
                if packet.pts is not None and packet.pts * base < from_s:
                    continue
                try:
                    track.decode(packet)
                except (FFmpegError, ValueError):
                    track.fault()
                if track.position_s >= second + 1:
                    break
        except FFmpegError:
            track.fault()  # of the container: what was read counts
        track.finish()
        wave, filled = track.take(second)
    if filled < MIN_SOUND_SHARE * spectrogram.rate_hz:
        raise MediaError(path, f"no second of sound at {second} s")
    return wave.astype(np.float32) / 32_768
