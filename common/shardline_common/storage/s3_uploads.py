"""The bodies of puts that are files, read in few large pieces.

aiohttp reads a file in pieces of 256 KiB, each by a call of a thread, which takes longer than the read.
"""

import io
import os
from functools import partial
from typing import Any

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Order, Payload, register_payload

from shardline_common.runtime.threads import run_in_thread

_PIECE = 1 << 20


class Upload(io.BufferedReader):
    """A file that is opened to be put."""


class UploadPayload(Payload):
    """The body of a request that is such a file, from its start on. Its owner closes it."""

    _value: Any

    def __init__(self, value: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(value, *args, **kwargs)
        self._size = os.fstat(value.fileno()).st_size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The whole file as text. No request needs it."""
        self._value.seek(0)
        return str(self._value.read().decode(encoding, errors))

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the whole file."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the file, up to a length."""
        # A request that is redirected is written again.
        size: int = os.fstat(self._value.fileno()).st_size
        left, at = size if content_length is None else content_length, 0
        while left > 0:
            piece = await run_in_thread(partial(_read_at, self._value, at, min(_PIECE, left)))
            if not piece:
                return
            at, left = at + len(piece), left - len(piece)
            await writer.write(piece)


def _read_at(file: Any, at: int, size: int) -> bytes:
    file.seek(at)
    return bytes(file.read(size))


def register_uploads() -> None:
    """Let aiohttp send an Upload as an UploadPayload. May be repeated."""
    global _registered  # noqa: PLW0603 - aiohttp has one registry for the process
    if not _registered:
        register_payload(UploadPayload, Upload, order=Order.try_first)
        _registered = True


_registered = False
