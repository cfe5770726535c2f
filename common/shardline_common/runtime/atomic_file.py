"""A local file that appears completely or not at all: written beside its path, synced, renamed."""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from shardline_common.errors import UsageError
from shardline_common.runtime.paths import os_reason, shown_path
from shardline_common.runtime.threads import run_in_thread


class AtomicFile:
    """A file that appears at its path when the context ends without an error. After an error nothing is left.

    The first write, else the end of the context, creates the folders above it. All methods block, and raise
    UsageError when the file cannot be written; so does making one for a path without a name.
    """

    def __init__(self, path: Path) -> None:
        if not path.name:
            raise UsageError(f"'{shown_path(path)}' names no file")
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._discard()

    def write(self, data: bytes) -> int:
        """Append. Returns the number of bytes."""
        try:
            return self._opened().write(data)
        except (OSError, ValueError) as error:
            raise self._error(error) from None

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
        return self._file

    def _commit(self) -> None:
        try:
            file = self._opened()
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._temporary.replace(self._path)
        except (OSError, ValueError) as error:
            raise self._error(error) from None

    def _discard(self) -> None:
        if self._file is None:
            return
        # Close first: Windows cannot remove an open file. On a full disk the close fails like the write.
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _error(self, error: OSError | ValueError) -> UsageError:
        return UsageError(f"{shown_path(self._path)} cannot be written: {os_reason(error)}")


class AsyncAtomicFile:
    """An AtomicFile for coroutines: its calls run on threads."""

    def __init__(self, path: Path) -> None:
        self._file = AtomicFile(path)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await run_in_thread(partial(self._file.__exit__, kind, error, trace))

    async def write(self, data: bytes) -> None:
        """Append."""
        await run_in_thread(partial(self._file.write, data))
