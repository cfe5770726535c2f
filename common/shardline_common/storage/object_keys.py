"""Object keys are checked here, at the boundary of every store, so that no key can escape its root."""

from shardline_common.errors import UsageError

_MOST_BYTES = 1024


def checked(key: str) -> str:
    """The key, if it is relative, `/`-separated, without `.` and `..`, and at most 1,024 bytes long.

    Raises:
        UsageError: it is not.
    """
    parts = key.split("/")
    bad = any(part in ("", ".", "..") for part in parts) or "\\" in key
    if bad or any(ord(char) < 0x20 for char in key) or len(key.encode()) > _MOST_BYTES:  # noqa: PLR2004 - C0
        raise UsageError(f"{key!r} is no valid object key")
    return key
