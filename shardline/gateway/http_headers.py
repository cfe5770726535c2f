"""The HTTP headers of downloads: Range (RFC 9110) and Content-Disposition (RFC 6266). Pure."""

import re
from urllib.parse import quote

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class RangeNotSatisfiable(ValueError):
    """The range lies behind the end of the file."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Parse a Range header for a file of `size` bytes.

    Returns:
        The offset of the first byte and the offset behind the last one. None means the whole file: the
        header is absent, or has several ranges or another unit, which a server may ignore.

    Raises:
        RangeNotSatisfiable: no byte of the file is in the range.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or end <= start:
        raise RangeNotSatisfiable(header)
    return start, end


def content_disposition(filename: str) -> str:
    """Return the header of a download: the name in ASCII for old clients, and in UTF-8 for all others."""
    plain = "".join(
        char if char.isascii() and (char.isalnum() or char in "._- ") else "_" for char in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
