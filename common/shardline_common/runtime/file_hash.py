"""The sha256 of a local file."""

from hashlib import file_digest
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The sha256 of the bytes of a file, in hexadecimal. Blocks. Raises OSError."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
