"""Reading files that nobody vouches for: regular ones, whole, up to a size."""

import errno
import io
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from visxp_jax.errors import VisxpError

# What zipfile raises for a damaged file, beside its own error.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, struct.error),
    *(ValueError, KeyError, RuntimeError, NotImplementedError, OverflowError),
)


class Unreadable(VisxpError):
    """A file that cannot be used: why, without its name."""


class NoZip(Unreadable):
    """A file that is no zip, or one whose list of parts is damaged."""


def open_regular(path: Path) -> io.FileIO:
    """A file to read, if it is a regular one: a pipe or a device would never end.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a file")
    return io.FileIO(handle)


def read_bytes(path: Path, most: int) -> bytes:
    """The whole of a regular file.

    Raises:
        Unreadable: it is none, cannot be read, or holds more than `most` bytes.
    """
    try:
        with io.BufferedReader(open_regular(path)) as file:
            data = file.read(most + 1)
    except OSError as error:
        raise Unreadable(error.strerror or "it cannot be read") from error
    if len(data) > most:
        raise Unreadable(f"it is over the limit of {most:,} bytes")
    return data


class _Listed(io.BufferedReader):
    """A zip file whose list of parts is not read where it is longer than any need.

    How many parts there are is no use to look at before: zipfile goes by the length of
    the list alone, whatever number is told, and reads it at once.
    """

    def __init__(self, raw: Any, most: int) -> None:
        super().__init__(raw)
        self.most: int | None = most  # until the list is read

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and self.most is not None and size > self.most:
            raise Unreadable(f"its list of parts is over {self.most:,} bytes")
        return super().read(size)


class Zip:
    """A zip in which parts are no larger than they say, whatever they say."""

    def __init__(self, source: Path | bytes, *, compressed: bool, most: int) -> None:
        """Read the list of parts.

        Args:
            source: A regular file, or what was in it.
            compressed: Whether parts may be deflated.
            most: Bytes of the list.

        Raises:
            NoZip: it is none, or damaged.
            Unreadable: it cannot be read, or its list is longer.
        """
        self._kinds = {zipfile.ZIP_STORED}
        if compressed:
            self._kinds.add(zipfile.ZIP_DEFLATED)
        try:
            whole = isinstance(source, bytes)
            raw = io.BytesIO(source) if whole else open_regular(source)
            self._source = _Listed(raw, most)
            try:
                self._file = zipfile.ZipFile(self._source)
            except BaseException:
                self._source.close()
                raise
        except Unreadable:
            raise
        except OSError as error:
            raise Unreadable(error.strerror or "it cannot be read") from error
        except DAMAGE as error:
            raise NoZip("it is no zip") from error
        self._source.most = None
        self.parts = {part.filename: part for part in self._file.infolist()}

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._source.close()

    def read(self, name: str, most: int) -> bytes:
        """One part.

        Raises:
            Unreadable: it is missing, damaged, compressed in another way, or larger
                than `most` or than it says.
        """
        part, named = self.parts.get(name), f"its part {ascii(name[:80])}"
        if part is None:
            raise Unreadable(f"{named} is missing")
        if part.file_size > most:
            raise Unreadable(f"{named} is over {most:,} bytes")
        if part.compress_type not in self._kinds:
            raise Unreadable(f"{named} is compressed")
        try:
            with self._file.open(part) as file:
                # Piece by piece, since a header may lie about the size.
                data = file.read(part.file_size + 1)
        except OSError as error:
            raise Unreadable(error.strerror or "it cannot be read") from error
        except DAMAGE as error:
            raise Unreadable(f"{named} is damaged") from error
        if len(data) != part.file_size:
            raise Unreadable(f"{named} is damaged")
        return data
