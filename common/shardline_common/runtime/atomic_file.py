"""A local file that is there whole or not at all: written beside its name, renamed at the end."""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from shardline_common.errors import UsageError
from shardline_common.runtime.threads import run_in_thread


class AtomicFile:
    """Leave the context without `finish` and nothing was written. Folders above the file are made.

    Every method raises UsageError when the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file: BinaryIO | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await run_in_thread(self._discard)

    async def write(self, data: bytes) -> None:
        """Add to the file; the first piece makes it, so that a search that fails at once leaves nothing."""
        await run_in_thread(partial(self._write, data))

    async def finish(self) -> None:
        """Give the file its name."""
        await run_in_thread(self._finish)

    def write_all(self, lines: Iterable[bytes]) -> None:
        """Write and finish, blocking."""
        try:
            self._write(b"")
            for line in lines:
                self._write(line)
            self._finish()
        finally:
            self._discard()

    def _write(self, data: bytes) -> None:
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._beside.open("wb")
            self._file.write(data)
        except OSError as error:
            raise self._refused(error) from None

    def _finish(self) -> None:
        self._write(b"")
        if self._file is None:
            raise AssertionError("writing opens the file")
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._beside.replace(self._path)
        except OSError as error:
            raise self._refused(error) from None

    def _discard(self) -> None:
        # Windows removes no open file.
        if self._file is not None:
            self._file.close()
            self._beside.unlink(missing_ok=True)

    def _refused(self, error: OSError) -> UsageError:
        return UsageError(f"{self._path} cannot be written: {error.strerror or error}")
