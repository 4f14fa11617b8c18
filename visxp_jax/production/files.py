"""Reading files that nobody vouches for: regular ones, whole, up to a size."""

import io
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from visxp_jax.errors import VisxpError

# What zipfile raises for a damaged file, beside its own error.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, struct.error),
    *(ValueError, KeyError, RuntimeError, NotImplementedError, OverflowError),
)


class Unreadable(VisxpError):
    """A file that cannot be used: why, without its name."""


def read_bytes(path: Path, most: int) -> bytes:
    """The whole of a regular file; a pipe or a device would never end.

    Raises:
        Unreadable: it is none, cannot be read, or holds more than `most` bytes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Unreadable("it is not a file")
            data = file.read(most + 1)
    except OSError as error:
        raise Unreadable(error.strerror or "it cannot be read") from error
    if len(data) > most:
        raise Unreadable(f"it is over the limit of {most:,} bytes")
    return data


class Zip:
    """A zip in which parts are no larger than they say, whatever they say."""

    def __init__(self, source: Path | bytes, *, compressed: bool) -> None:
        """Read the list of parts.

        Args:
            source: A regular file, or what was in it.
            compressed: Whether parts may be deflated.

        Raises:
            Unreadable: it is no zip, or damaged.
        """
        self._kinds = {zipfile.ZIP_STORED}
        if compressed:
            self._kinds.add(zipfile.ZIP_DEFLATED)
        try:
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            self._file = zipfile.ZipFile(file)
        except OSError as error:
            raise Unreadable(error.strerror or "it cannot be read") from error
        except DAMAGE as error:
            raise Unreadable("it is no zip") from error
        self.parts = {part.filename: part for part in self._file.infolist()}

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def read(self, name: str, most: int) -> bytes:
        """One part.

        Raises:
            Unreadable: it is missing, damaged, compressed in another way, or larger
                than `most` or than it says.
        """
        part = self.parts.get(name)
        if part is None:
            raise Unreadable(f"its part {ascii(name)} is missing")
        if part.file_size > most:
            raise Unreadable(f"its part {ascii(name)} is over {most:,} bytes")
        if part.compress_type not in self._kinds:
            raise Unreadable(f"its part {ascii(name)} is compressed")
        try:
            with self._file.open(part) as file:
                # Piece by piece, since a header may lie about the size.
                data = file.read(part.file_size + 1)
        except OSError as error:
            raise Unreadable(error.strerror or "it cannot be read") from error
        except DAMAGE as error:
            raise Unreadable(f"its part {ascii(name)} is damaged") from error
        if len(data) != part.file_size:
            raise Unreadable(f"its part {ascii(name)} is damaged")
        return data
