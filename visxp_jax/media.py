"""Videos in, one-second clips out: the frame and the sound of the same second."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.error import FFmpegError

from visxp_jax.audio.spectrogram import Spectrogram
from visxp_jax.clock import Clock
from visxp_jax.container import (
    TOO_MUCH_MEMORY,
    MediaError,
    MediaInfo,
    opened,
    packets_of,
    printable,
    probe,
    streams_of,
)
from visxp_jax.decode import Decoding, decoding
from visxp_jax.tracks import OnFrame, Shown, SoundTrack, shown

__all__ = [
    "FLAGS",
    "Clip",
    "MediaError",
    "MediaInfo",
    "ReadReport",
    "flags_told",
    "printable",
    "probe",
    "read_clips",
]

# Below this root mean square of full scale a second is silent: -60 dBFS.
SILENT_RMS = 1e-3
# Mean absolute difference of two frames, of 255 levels, below which nothing moved.
STILL_LEVELS = 1.0
# A second with less than all but this share of its sound is partial, ...
PARTIAL_SHARE = 0.01
# ... and with less than this share of it has none.
MIN_SOUND_SHARE = 0.5
# What is said of clips that have these flags.
FLAGS = {
    "no_audio": "without sound",
    "silent": "silent",
    "still": "with a still picture",
    "partial": "with sound for less than the whole second",
}


def flags_told(counts: Mapping[str, int]) -> str:
    """How many clips have which of `FLAGS`, for people; nothing if none has any."""
    return ", ".join(f"{counts[x]} {words}" for x, words in FLAGS.items() if counts[x])


class Clip(NamedTuple):
    """Second [start_s, end_s) of a video, counted from its first picture."""

    start_s: float
    end_s: float
    frame_s: float  # when the frame appeared: the latest not after the middle
    frame: np.ndarray  # uint8 [size_px, size_px, 3], RGB, upright
    log_mel: np.ndarray  # float32 [m, f], all zeros without sound
    has_audio: bool  # at least half of the second's sound is there
    silent: bool  # it is, at less than -60 dBFS
    still: bool  # the frame is nearly that of the second before
    partial: bool  # more than 10 ms of sound is missing; zeros stand for it
    thumbnail: np.ndarray | None  # uint8 [h, w, 3], the frame in its own aspect


@dataclass
class ReadReport:
    """How a pass over a file went; filled in while clips are read.

    Attributes:
        seconds: From the first picture to the end of the last good one.
        sound_seconds: From the first picture to the end of the sound, 0 without.
        clips: Clips handed out.
        dropped: Seconds left out because the pictures have a gap there.
        frames: Pictures without fault, as far as they had to be decoded.
        faults: Packets and pictures that were damaged.
        leaps: Times that the file's clock was replaced by another, see `Clock`.
        video_stream: Number, as FFmpeg counts, of the stream that pictures are of.
        audio_stream: Likewise of the sound, -1 if there is none.
    """

    seconds: float = 0.0
    sound_seconds: float = 0.0
    clips: int = 0
    dropped: int = 0
    frames: int = 0
    faults: int = 0
    leaps: int = 0
    video_stream: int = -1
    audio_stream: int = -1

    def note(self, tracks: Decoding[Any]) -> None:
        """Take over what is known of the file by now."""
        self.frames = tracks.pictures.num_frames
        self.faults, self.leaps = tracks.num_faults, tracks.num_leaps
        self.video_stream, self.audio_stream = tracks.streams
        if tracks.sounds:
            self.sound_seconds = round(max(tracks.sounds[0].position_s, 0.0), 3)
        self.seconds = round(tracks.pictures.position_s, 3)


def read_clips(
    path: Path,
    *,
    size_px: int,
    spectrogram: Spectrogram,
    thumbnail_px: int = 0,
    on_frame: OnFrame | None = None,
    report: ReadReport | None = None,
    from_s: int = 0,
) -> Iterator[Clip]:
    """The whole seconds of a video in one pass; memory does not grow with its length.

    Clip i is second [i, i + 1) of presentation time from the start of the video stream,
    for picture and sound alike: sound that starts earlier is cut, sound that starts
    later leaves the first clips partial. The frame is the latest one shown at or before
    the middle. A last part shorter than one second is dropped, and so are seconds that
    touch a gap left by damage: from the last good frame to the next good key frame.
    Transport and program streams may be joined of several, see `Clock`. Of several
    programmes in a file one is read, see `streams_of`.
    Where every picture stands by itself, only those of the clips are decoded.

    Args:
        path: A local video file.
        size_px: Frames become size_px x size_px, whatever their aspect.
        spectrogram: Preset for the sound.
        thumbnail_px: Longer side of thumbnails; 0 for none.
        on_frame: Is shown every good frame, with its time; all are decoded then.
        report: Filled in on the way.
        from_s: The first second that is wanted; what comes before is not decoded where
            that can be helped. A file may be such that seconds lack then, or sound in
            them, which a pass from the start has.

    Yields:
        Clips in order of time.

    Raises:
        MediaError: the file cannot be opened, has no video, is over a limit, or yields
            no clip.
    """
    report = ReadReport() if report is None else report
    with decoding(
        path,
        made_of=shown(size_px, thumbnail_px),
        rates_hz=[spectrogram.rate_hz],
        on_frame=on_frame,
        from_s=from_s,
    ) as tracks:
        maker = _ClipMaker(tracks, spectrogram, report, from_s)
        for ended in tracks.advance():
            yield from maker.ready(ended=ended)
    if not report.clips:
        raise MediaError(path, why_nothing(report))


def read_sounds(
    path: Path,
    seconds: Collection[int],
    *,
    rate_hz: int,
    on_second: Callable[[], None] = lambda: None,
) -> dict[int, np.ndarray]:
    """The sound of some seconds of a video, to listen to.

    Args:
        path: A local video file.
        seconds: As `Clip.start_s` counts them.
        rate_hz: Of the result.
        on_second: Called for every second passed, wanted or not.

    Returns:
        second -> int16 [rate_hz], mono; seconds without sound are left out.

    Raises:
        MediaError: the file cannot be opened, has no video, or is over a limit.
    """
    sounds: dict[int, np.ndarray] = {}
    with opened(path) as container:
        video, audio = streams_of(container, path)
        if audio is None or not seconds:
            return sounds
        start_s = (video.start_time or 0) * Fraction(video.time_base or 0)
        track = SoundTrack(rate_hz=rate_hz, start_s=start_s)
        second = 0

        def collect(until: float) -> None:
            nonlocal second
            while second + 1 <= until and second <= max(seconds):
                wave, filled = track.take(second)
                if second in seconds and filled:
                    sounds[second] = wave
                second += 1
                on_second()

        clock = Clock(container.format.name)
        for packet in packets_of(container, path, video, audio, clock):
            if packet.stream is video:
                continue
            try:
                track.decode(packet)
            except MemoryError as error:
                raise MediaError(path, TOO_MUCH_MEMORY) from error
            except (FFmpegError, ValueError):
                track.fault()
            collect(track.position_s)
            if second > max(seconds):
                return sounds
        track.finish()
        # To the end of the sound: wanted seconds may be any number of years after it.
        collect(min(max(seconds) + 1, math.ceil(track.position_s)))
    return sounds


class _ClipMaker:
    """Puts seconds together as soon as both tracks have them."""

    def __init__(
        self,
        tracks: Decoding[Shown],
        spectrogram: Spectrogram,
        report: ReadReport,
        second: int,
    ) -> None:
        self._tracks = tracks
        self._spectrogram = spectrogram
        self._report = report
        self._second = second
        self._last_frame: np.ndarray | None = None

    def ready(self, *, ended: bool) -> Iterator[Clip]:
        tracks, report = self._tracks, self._report
        while tracks.pictures.has(self._second) and (
            ended or tracks.heard_s >= self._second + 1
        ):
            clip = self._clip(self._second)
            self._second += 1
            if clip is None:
                report.dropped += 1
            else:
                report.clips += 1
                yield clip
        report.note(tracks)

    def _clip(self, second: int) -> Clip | None:
        picture = self._tracks.pictures.take(second)
        preset = self._spectrogram
        samples, filled = np.zeros(preset.rate_hz, np.int16), 0
        for sound in self._tracks.sounds:
            samples, filled = sound.take(second)
        if picture is None:
            self._last_frame = None
            return None
        has_audio = filled >= MIN_SOUND_SHARE * preset.rate_hz
        missing = preset.rate_hz - filled
        wave = samples.astype(np.float32) / 32_768
        log_mel = preset.log_mel(wave) if has_audio else np.zeros(preset.shape, "f4")
        frame = picture.frame.frame
        last, self._last_frame = self._last_frame, frame
        return Clip(
            start_s=float(second),
            end_s=float(second + 1),
            frame_s=picture.time_s,
            frame=frame,
            log_mel=log_mel,
            has_audio=has_audio,
            silent=has_audio and float(np.sqrt(np.mean(wave**2))) < SILENT_RMS,
            still=last is not None and _difference(last, frame) < STILL_LEVELS,
            partial=bool(self._tracks.sounds)
            and missing > PARTIAL_SHARE * preset.rate_hz,
            thumbnail=picture.frame.thumbnail,
        )


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean(np.abs(a.astype(np.int16) - b.astype(np.int16))))


def why_nothing(report: ReadReport) -> str:
    """Why a pass over a file came to no clip."""
    if report.frames == 0:
        return "no picture in it could be decoded"
    if report.dropped:
        return f"damaged: no whole second among {report.frames} good frames"
    if report.faults:
        return f"damaged: only {report.seconds:.2f} s before the damage"
    return f"shorter than one second ({report.seconds:.2f} s)"
