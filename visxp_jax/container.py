"""Opening videos from outside, which are trusted with nothing.

Only local files of known container formats are opened, and sizes are limited. No shell
is involved anywhere.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.error import FFmpegError
from av.stream import Disposition

from visxp_jax.clock import JOINED, Clock
from visxp_jax.errors import VisxpError

# FFmpeg's names. No playlists, no image sequences: those name other files.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,ogg,flv,asf,mxf,"
    "dv,wav,mp3,flac,aac,aiff"
)
MAX_PIXELS = 8192 * 4608
MAX_STREAMS = 64
MAX_DURATION_S = 24 * 3600.0
TOO_MUCH_MEMORY = "takes more memory than allowed"
# Titles come in any encoding, and nobody reads them here. PyAV 19 needs not be told.
ANY_TITLES: dict[str, Any] = (
    {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
)
MAX_READ_ERRORS = 100  # of the container, in a row


class MediaError(VisxpError):
    """A file that cannot be used.

    Attributes:
        reason: Why, without the file's name.
    """

    def __init__(self, path: Path, reason: str) -> None:
        """Name the file in one line whatever its name holds."""
        super().__init__(f"{printable(path)}: {reason}")
        self.reason = reason


class MediaInfo(NamedTuple):
    """What a container says of itself; 0 or '' where it does not say."""

    format: str
    seconds: float
    width: int
    height: int
    fps: float
    num_frames: int
    video_codec: str
    has_audio: bool
    audio_rate_hz: int
    audio_channels: int
    audio_codec: str


def printable(path: Path) -> str:
    r"""A file name in one line of valid UTF-8; odd bytes become `\xff`."""
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    return name if name.isprintable() else repr(name)[1:-1]


def probe(path: Path) -> MediaInfo:
    """What a media file says of itself.

    Raises:
        MediaError: it cannot be opened, holds no video, or is over a limit.
    """
    with opened(path) as container:
        video, audio = streams_of(container, path)
        return MediaInfo(
            format=container.format.name,
            seconds=(container.duration or 0) / av.time_base,
            width=video.codec_context.width,
            height=video.codec_context.height,
            fps=float(video.average_rate or 0),
            num_frames=video.frames,
            video_codec=video.codec_context.name,
            has_audio=audio is not None,
            audio_rate_hz=audio.codec_context.sample_rate if audio else 0,
            audio_channels=audio.codec_context.channels if audio else 0,
            audio_codec=audio.codec_context.name if audio else "",
        )


def opened(path: Path) -> Any:
    """The container, from a local file of an allowed format only."""
    path = Path(os.path.abspath(path))  # a leading dash or `x:` then means nothing
    check_file(path)
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        container = av.open(os.fspath(path), options=options, **ANY_TITLES)
    except MemoryError as error:
        raise MediaError(path, TOO_MUCH_MEMORY) from error
    except PermissionError as error:
        raise MediaError(path, "may not be read") from error
    except (FFmpegError, OSError, ValueError) as error:
        raise MediaError(path, "not a readable media file") from error
    return container


def check_file(path: Path) -> None:
    """Before it is opened: to open a pipe would be to wait.

    Raises:
        MediaError: it is not there, no file, or empty.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise MediaError(path, "no such file") from error
    except OSError as error:  # of a folder that may be listed, not entered
        raise MediaError(path, "may not be read") from error
    if stat.S_ISDIR(found.st_mode):
        closed = not os.access(path, os.R_OK | os.X_OK)
        why = "a folder that may not be read" if closed else "a folder, not a file"
        raise MediaError(path, why)
    if not stat.S_ISREG(found.st_mode):
        raise MediaError(path, "not a file")
    if not found.st_size:
        raise MediaError(path, "an empty file")


def streams_of(
    container: Any, path: Path
) -> tuple[av.VideoStream, av.AudioStream | None]:
    """The picture and the sound of one programme, within the limits.

    The picture is the first video stream that is no cover. The sound is the one that
    the ffmpeg command takes, by which production does it; in a transport stream, what
    FFmpeg takes for the best in the picture's programme, and none where that has none.
    """
    if len(container.streams) > MAX_STREAMS:
        count = len(container.streams)
        raise MediaError(path, f"over the limit of {MAX_STREAMS} streams: {count}")
    videos = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic  # a cover, not a video
    ]
    if not videos:
        raise MediaError(path, "no video stream")
    # As OpenCV and PySceneDetect, by which VisXP finds its shots, take it. FFmpeg's
    # best goes by bit rate and by what its probing has seen: of equal programmes it
    # may be any, and another with the next version.
    video = videos[0]
    if video.codec_context is None:
        raise MediaError(path, "no decoder for its video")
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > MAX_PIXELS:
        raise MediaError(
            path, f"over the limit of {MAX_PIXELS} pixels: {width} x {height}"
        )
    seconds = (container.duration or 0) / av.time_base
    if seconds > MAX_DURATION_S:
        raise MediaError(
            path, f"over the limit of {MAX_DURATION_S:.0f} s: {seconds:.0f} s"
        )
    audio = _sound_of(container, video)
    for stream in (video, audio):
        if stream is not None:
            stream.codec_context.thread_count = 1  # files are read in parallel
    return video, audio


def _sound_of(container: Any, video: av.VideoStream) -> av.AudioStream | None:
    """None if there is none that can be decoded."""
    if container.format.name in JOINED:  # may have programmes
        best = container.streams.best("audio", related=video)
        return best if best is not None and best.codec_context is not None else None
    return max(
        (stream for stream in container.streams.audio if stream.codec_context),
        # Of several by default, or of none, that of the most channels, then the first.
        key=lambda x: (bool(x.disposition & Disposition.default), x.channels),
        default=None,
    )


def packets_of(
    container: Any,
    path: Path,
    video: av.VideoStream,
    audio: av.AudioStream | None,
    clock: Clock,
) -> Iterator[av.Packet]:
    """All packets on one clock; errors of the container itself are stepped over."""
    streams = [video] if audio is None else [video, audio]
    errors = 0
    packets = container.demux(streams)
    while errors < MAX_READ_ERRORS:
        try:
            packet = next(packets)
        except (StopIteration, EOFError):
            return
        except MemoryError as error:
            raise MediaError(path, TOO_MUCH_MEMORY) from error
        except FFmpegError:
            errors += 1
            packets = container.demux(streams)
            continue
        errors = 0
        clock.straighten(packet)
        yield packet
