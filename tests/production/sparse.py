"""A file of a tar archive that is one hole."""

import tarfile


def sparse_member(name: str, size: int) -> bytes:
    """Its header, 512 bytes that stand for any number."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    data[386:410] = b"%011o\0%011o\0" % (size, 0)  # the hole ends in nothing
    data[483:495] = b"%011o\0" % size
    data[148:156] = b" " * 8  # which its checksum counts
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)
