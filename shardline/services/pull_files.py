"""The local files of a pull: one writer at a time, parts that a later pull continues, and their hashes."""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shardline_common.dataset.published import MANIFEST
from shardline_common.dataset.read import StoredBytes
from shardline_common.dataset.success import hash_of
from shardline_common.errors import UsageError
from shardline_common.runtime.file_hash import file_sha256
from shardline_common.runtime.paths import os_reason, shown_path
from shardline_common.storage.directory import LOCK

# A name that no listing of a dataset shows.
_LOCK = f"{LOCK}-pull"
_CHUNK = 1 << 20
_PAUSE_SECONDS = 0.2
PART = ".part"


def unwritable(path: Path, error: OSError | ValueError) -> UsageError:
    """The error of a file that cannot be written."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "free some space, then pull again: what is there is kept" if full else "choose another folder"
    return UsageError(f"{shown_path(path)} cannot be written: {os_reason(error)}", hint=hint)


@contextmanager
def locked_folder(folder: Path, manifest: bytes, on_wait: Callable[[], None]) -> Iterator[None]:
    """Lock a folder for the pull of a dataset; waits while another pull writes to it. It blocks.

    `manifest`: the bytes of the dataset's manifest, which no other dataset has.

    Raises:
        UsageError: the folder cannot be written, or holds another dataset.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from None
    try:
        _wait_for(file, on_wait)
        _check_same(folder, file, manifest)
        yield
    finally:
        os.close(file)


def _check_same(folder: Path, file: int, manifest: bytes) -> None:
    name, other = hash_of(manifest).encode(), None
    # A folder that holds a dataset which was not pulled has no name of it in the lock.
    with suppress(FileNotFoundError):
        other = (folder / MANIFEST).read_bytes()
    if os.pread(file, _CHUNK, 0) not in (b"", name) or other not in (None, manifest):
        raise UsageError(
            f"{shown_path(folder)} holds the files of another dataset",
            hint="pull into another folder, or remove this one",
        )
    os.pwrite(file, name, 0)


def _wait_for(file: int, on_wait: Callable[[], None]) -> None:
    if os.name != "posix":
        return
    import fcntl  # noqa: PLC0415 - not on Windows

    waits = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waits:
                on_wait()
            waits = True
            time.sleep(_PAUSE_SECONDS)
        else:
            return


class _OpenPart:
    """A file beside its path, whose bytes stay when it is closed without a name."""

    _file: int

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + PART)

    def _open(self) -> int:
        return os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def commit(self) -> None:
        """Give the file its name. It has been synced: a name never leads to bytes that a crash has lost."""
        try:
            os.fsync(self._file)
            self._part.replace(self._path)
        except OSError as error:
            raise unwritable(self._path, error) from None

    def close(self) -> None:
        """Close the file; its bytes stay."""
        os.close(self._file)


class PartFile(_OpenPart):
    """The first bytes of a file, beside its path. What an earlier pull has left is kept. Its calls block."""

    def __init__(self, path: Path, expected: StoredBytes) -> None:
        super().__init__(path)
        self._expected = expected
        self._hash = hashlib.sha256()
        self.size = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
            while chunk := os.read(self._file, _CHUNK):
                self._hash.update(chunk)
                self.size += len(chunk)
            if self.size > expected.size:
                self.reset()
        except (OSError, ValueError) as error:
            raise unwritable(path, error) from None

    @property
    def is_whole(self) -> bool:
        """Whether the file has the expected bytes."""
        return StoredBytes(self.size, self._hash.hexdigest()) == self._expected

    def write(self, chunk: bytes) -> None:
        """Append. Raises UsageError when the file cannot be written."""
        self._hash.update(chunk)
        self.size += len(chunk)
        try:
            _write_all(self._file, chunk, self.size - len(chunk))
        except OSError as error:
            raise unwritable(self._path, error) from None

    def reset(self) -> None:
        """Drop all bytes: they are others than the expected ones."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._hash, self.size = hashlib.sha256(), 0


class JoinedFile(_OpenPart):
    """The rows of several shards in one file: each has its place before any of them came. Its calls block."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not self._part.exists():
                # It may be whole. Its rows are compared, and what is wrong is written again.
                path.replace(self._part)
            self._file = self._open()
            os.ftruncate(self._file, size)
        except (OSError, ValueError) as error:
            raise unwritable(path, error) from None

    def hash_of(self, start: int, size: int) -> str:
        """The sha256 of `size` bytes from `start` on."""
        found, end = hashlib.sha256(), start + size
        while start < end and (chunk := os.pread(self._file, min(_CHUNK, end - start), start)):
            found.update(chunk)
            start += len(chunk)
        return found.hexdigest()

    def write(self, chunk: bytes, start: int) -> None:
        """Write from `start` on. Raises UsageError when the file cannot be written."""
        try:
            _write_all(self._file, chunk, start)
        except OSError as error:
            raise unwritable(self._path, error) from None


def _write_all(file: int, chunk: bytes, start: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(file, view, start)
        view = view[written:]
        start += written


def has_bytes(path: Path, expected: StoredBytes) -> bool:
    """Whether a file is there with these bytes. It reads the whole file if the size is right."""
    try:
        if path.stat().st_size != expected.size:
            return False
        return file_sha256(path) == expected.sha256
    except (OSError, ValueError):
        return False
