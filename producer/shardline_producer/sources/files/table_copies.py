"""Private copies of files that need random access, in the spool folder."""

import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from shardline_common.errors import SourceUnavailable
from shardline_common.runtime.paths import os_reason, shown_path
from shardline_common.runtime.threads import run_in_thread
from shardline_common.runtime.waits import log_wait

_WRITE = 1 << 20


@dataclass(frozen=True, slots=True)
class TableCopies:
    """Makes copies in `folder`, whose disk keeps `reserve` bytes free."""

    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    reserve: int = 0

    @asynccontextmanager
    async def copy(
        self, path: str, size: int, stream: AsyncGenerator[bytes, None]
    ) -> AsyncIterator[BinaryIO]:
        """A file with the bytes of a stream, which is closed. Nobody else can open it.

        It has no name, so that nothing of it is left, however the process ends.

        Raises:
            SourceUnavailable: the folder cannot be written, or its disk has too little space.
        """
        done = 0
        with log_wait(f"the copy of {shown_path(path)}", lambda: f"{done:,} of {size:,} bytes"):
            file = await run_in_thread(partial(self._create, path, size), lambda file: file.close())
            try:
                async with aclosing(stream):
                    held = bytearray()
                    async for chunk in stream:
                        held += chunk
                        if len(held) >= _WRITE:
                            done += len(held)
                            await run_in_thread(partial(self._write, file, bytes(held)))
                            held.clear()
                    await run_in_thread(partial(self._write, file, bytes(held)))
            except BaseException:
                file.close()
                raise
        try:
            yield file
        finally:
            file.close()

    def _create(self, path: str, size: int) -> BinaryIO:
        try:
            free = shutil.disk_usage(self.folder).free - self.reserve
            if free < size:
                raise SourceUnavailable(
                    f"{shown_path(path)} of {size:,} bytes is copied before it is read, and the disk of "
                    f"{self.folder} has {max(0, free):,} bytes free beyond the reserve",
                    hint="free disk space there, set SHARDLINE_SPOOL_DIR to another folder, or lower "
                    "SHARDLINE_SPOOL_RESERVE_BYTES",
                )
            return tempfile.TemporaryFile(prefix="shardline-table-", dir=self.folder, buffering=0)
        except OSError as error:
            raise self._unavailable(error) from error

    def _write(self, file: BinaryIO, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> SourceUnavailable:
        return SourceUnavailable(
            f"the spool folder {self.folder} cannot be written: {os_reason(error)}",
            hint="free disk space there, or set SHARDLINE_SPOOL_DIR to another folder",
        )
