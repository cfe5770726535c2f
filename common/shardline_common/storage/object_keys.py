"""The check of object keys. Every store applies it, so no key can name an object outside of the root."""

from shardline_common.errors import UsageError
from shardline_common.runtime.paths import path_fault, shown_path

_MAX_BYTES = 1024


def checked_key(key: str) -> str:
    """Return the key if it is valid: relative, `/`-separated, without `.` and `..`, up to 1,024 bytes.

    Raises:
        UsageError: the key is not valid.
    """
    parts = key.split("/")
    bad = any(part in ("", ".", "..") for part in parts) or "\\" in key or path_fault(key) is not None
    if bad or any(ord(char) < 0x20 for char in key) or len(key.encode()) > _MAX_BYTES:  # noqa: PLR2004 - C0
        raise UsageError(f"'{shown_path(key)}' is no valid object key")
    return key
