"""The Range header of a download (RFC 9110): one range of bytes, or the whole. Pure."""

import re

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Unsatisfiable(ValueError):
    """The range lies behind the end."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last, or None for the whole: no header, or one to be ignored.

    Raises:
        Unsatisfiable: nothing of the file is in the range.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found[0] == "bytes=-":
        # Several ranges, or another unit: a server may send the whole.
        return None
    first, last = found[1], found[2]
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or end <= start:
        raise Unsatisfiable(header)
    return start, end
