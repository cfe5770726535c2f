"""The plan pages of a stream: up to 1 MiB in memory, the rest on disk until the stream ends."""

import asyncio
import tempfile
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from shardline_common.errors import StoreUnavailable
from shardline_common.runtime.threads import run_in_thread

_IN_MEMORY = 1 << 20


class ScratchPlanPages:
    """Implements `sources.source.PlanPages` for one reader. Nothing is synced: a stream is never resumed."""

    def __init__(self) -> None:
        self._pages: dict[str, bytes | Path] = {}
        self._size = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            await run_in_thread(self._folder.cleanup)

    async def create_or_get(self, name: str, body: bytes) -> bytes:
        """Store a page if its name is new. Returns the stored body."""
        if name in self._pages:
            return await self.get(name)
        self._size += len(body)
        if self._size <= _IN_MEMORY:
            self._pages[name] = body
        else:
            self._pages[name] = await run_in_thread(partial(self._write, len(self._pages), body))
        return body

    def _write(self, number: int, body: bytes) -> Path:
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="shardline-stream-")
            path = Path(self._folder.name) / str(number)
            path.write_bytes(body)
        except OSError as error:
            raise StoreUnavailable(f"the plan cannot be kept on disk: {error.strerror}") from error
        return path

    async def get(self, name: str) -> bytes:
        """Return the body of a page."""
        page = self._pages[name]
        return page if isinstance(page, bytes) else await asyncio.to_thread(page.read_bytes)

    async def names(self, folder: str) -> list[str]:
        """Return the sorted names of the pages in a folder ("" is the root), without those of subfolders."""
        inside = f"{folder}/" if folder else ""
        return sorted(
            name for name in self._pages if name.startswith(inside) and "/" not in name[len(inside) :]
        )
