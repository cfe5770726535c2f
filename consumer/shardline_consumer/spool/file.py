"""Spool files: the rows of open segments are on disk, so memory does not grow with the size of a shard."""

import gzip
import os
import shutil
import tempfile
from collections.abc import Sequence
from hashlib import file_digest, sha256
from pathlib import Path

import zstandard

from shardline_common.errors import SpoolError
from shardline_common.runtime.file_hash import file_sha256

_COPY = 1 << 20


class SpoolDamaged(Exception):
    """The bytes of a spool file are not those that were written to it."""


def spool_error(folder: Path, error: OSError) -> SpoolError:
    """The SpoolError for an OSError in the spool folder, with a hint."""
    return SpoolError(
        f"the spool folder {folder} cannot be written: {error.strerror or error}",
        hint="free disk space there, or set SHARDLINE_SPOOL_DIR to another folder; nothing was lost",
    )


class SpoolFile:
    """An append-only file with the sha256 of its content. Its methods block: call them on a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hash = sha256()
        self.size = 0
        try:
            handle, name = tempfile.mkstemp(prefix="segment-", dir=folder)
            self._file = os.fdopen(handle, "wb", buffering=0)
        except OSError as error:
            raise spool_error(folder, error) from error
        self.path = Path(name)

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append the chunks in order.

        Raises:
            SpoolError: the disk is full, or the folder is gone.
        """
        data = b"".join(chunks)
        self._hash.update(data)
        self.size += len(data)
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise spool_error(self._folder, error) from error

    @property
    def sha256(self) -> str:
        """The sha256 of the content, in hexadecimal."""
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Close and remove the file. May be repeated."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def is_damaged(path: Path, sha256: str) -> bool:
    """Whether a file has other bytes than those that were written. Blocks. Raises SpoolError."""
    try:
        return file_sha256(path) != sha256
    except OSError as error:
        raise spool_error(path.parent, error) from error


def packed_path(source: Path, compression: str) -> Path:
    """The path of the compressed copy, beside `source`."""
    return source.with_suffix("." + compression)


def compress(source: Path, target: Path, size: int, compression: str) -> tuple[int, str]:
    """Write a compressed copy: one zstd frame with its content size, or gzip without a time stamp. Blocks.

    Returns the size of the copy, and its sha256 in hexadecimal.

    Raises:
        SpoolError: the disk is full.
    """
    try:
        with source.open("rb") as plain, target.open("wb") as out:
            if compression == "zstd":
                with zstandard.ZstdCompressor(level=3).stream_writer(out, size=size, closefd=False) as frame:
                    shutil.copyfileobj(plain, frame, _COPY)
            else:
                with gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as member:
                    shutil.copyfileobj(plain, member, _COPY)
        with target.open("rb") as packed:
            return target.stat().st_size, file_digest(packed, "sha256").hexdigest()
    except OSError as error:
        raise spool_error(source.parent, error) from error
