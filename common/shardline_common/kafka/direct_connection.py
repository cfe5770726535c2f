"""A connection of aiokafka that copies less.

A stream of asyncio copies what it receives twice before aiokafka takes the records out of it, and wakes its
reader for each part of an answer. Here an answer is received into the buffer that it is decoded from, and its
reader wakes once. aiokafka copies a request twice before it is written: here it is joined once.
tests/unit/test_aiokafka_internals.py fails where a later aiokafka has moved a part.
"""
# ruff: noqa: SLF001 - connections have no public calls for these things

import asyncio
import time
from struct import Struct
from typing import Any

from aiokafka.conn import AIOKafkaConnection, AIOKafkaProtocol, CloseReason
from aiokafka.errors import KafkaConnectionError
from aiokafka.util import wait_for

from shardline_common.kafka.client_internals import JoinedProduceRequest

_SIZE = Struct(">i")
_SMALL = 1 << 16
# A larger buffer is not kept for the next answer.
_KEPT = 1 << 24


class _FrameReader(asyncio.StreamReader):
    """Receives answers: small ones into a buffer that they share, a large one into a buffer of its size.

    What `readexactly` returns of a large one is valid until the next call.
    """

    _transport: asyncio.ReadTransport

    def prepare(self) -> None:
        """Set what a constructor would set. Nothing waits to be read."""
        self._small = memoryview(bytearray(_SMALL))
        self._start = self._end = 0
        self._large = memoryview(b"")
        self._have = self._wanted = 0
        self._full = False
        self._arrived: asyncio.Future[None] | None = None

    def room(self) -> memoryview:
        """Where to receive next."""
        return (
            self._large[self._have : self._wanted] if self._have < self._wanted else self._small[self._end :]
        )

    def received(self, count: int) -> None:
        """So many bytes were received into the room."""
        if self._have < self._wanted:
            self._have += count
            if self._have < self._wanted:
                return
        else:
            self._end += count
            if self._end == _SMALL:
                # There is room again when somebody has read.
                self._full = True
                self._transport.pause_reading()
        self._wake()

    def feed_eof(self) -> None:
        """The peer sends no more."""
        super().feed_eof()
        self._wake()

    def set_exception(self, exc: Exception) -> None:
        """The connection is broken."""
        super().set_exception(exc)
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def _arrival(self, wanted: int) -> None:
        if (error := self.exception()) is not None:
            raise error
        if self.at_eof():
            raise asyncio.IncompleteReadError(b"", wanted)
        self._arrived = asyncio.get_running_loop().create_future()
        try:
            await self._arrived
        finally:
            self._arrived = None

    async def readexactly(self, n: int) -> Any:
        """The next bytes. Raises as that of a stream."""
        if n > _SMALL // 2:
            return await self._read_large(n)
        while self._end - self._start < n:
            if self._start + n > _SMALL:
                self._move_to_front()
            await self._arrival(n)
        found = bytes(self._small[self._start : self._start + n])
        self._taken(n)
        return found

    async def _read_large(self, n: int) -> memoryview:
        if not n <= len(self._large) <= _KEPT:
            self._large = memoryview(bytearray(n))
        waiting = min(n, self._end - self._start)
        self._large[:waiting] = self._small[self._start : self._start + waiting]
        self._have, self._wanted = waiting, n
        self._taken(waiting)
        while self._have < n:
            await self._arrival(n)
        self._have = self._wanted = 0
        return self._large[:n]

    def _taken(self, count: int) -> None:
        self._start += count
        if self._start == self._end:
            self._start = self._end = 0
        elif self._full:
            self._move_to_front()
        if self._full:
            self._full = False
            self._transport.resume_reading()

    def _move_to_front(self) -> None:
        waiting = self._end - self._start
        self._small[:waiting] = bytes(self._small[self._start : self._end])
        self._start, self._end = 0, waiting


class _FrameProtocol(AIOKafkaProtocol, asyncio.BufferedProtocol):  # type: ignore[misc]  # aiokafka is untyped
    """Receives into the room of a _FrameReader."""

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - as in the base class
        room: memoryview = self._stream_reader.room()
        return room

    def buffer_updated(self, nbytes: int) -> None:
        self._stream_reader.received(nbytes)


class _Frame:
    """A large answer as the file that it is decoded from."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def read(self, size: int) -> bytes:
        """The next bytes."""
        found = bytes(self._data[self._at : self._at + size])
        self._at += size
        return found


class DirectConnection(AIOKafkaConnection):  # type: ignore[misc]  # aiokafka is untyped
    """A connection that copies less. `copy_less` turns one into it."""

    def _handle_frame(self, resp: Any) -> None:
        correlation_id, request, answer = self._requests[0]
        if isinstance(resp, memoryview):
            frame = _Frame(resp)
            if (
                correlation_id is None
                or request.parse_response_header(frame).correlation_id != correlation_id
            ):
                # The base class says so.
                resp = bytes(resp)
            else:
                if not answer.done():
                    answer.set_result(request.RESPONSE_TYPE.decode(frame))
                self._last_action = time.monotonic()
                self._requests.popleft()
                return
        super()._handle_frame(resp)

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request. The future that is returned has its answer."""
        if self._writer is None or not (expect_response and isinstance(request, JoinedProduceRequest)):
            return super().send(request, expect_response)
        prepared = request.prepare(self._versions)
        number = self._next_correlation_id()
        header = prepared.build_request_header(correlation_id=number, client_id=self._client_id).encode()
        parts = request.parts() if prepared.encode == request.joined else [prepared.encode()]
        size = _SIZE.pack(len(header) + sum(map(len, parts)))
        try:
            self._writer.write(b"".join((size, header, *parts)))
        except OSError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self._host}:{self._port} broken: {error}") from error
        answer = self._loop.create_future()
        self._requests.append((number, prepared, answer))
        return wait_for(answer, self._request_timeout)


def copy_less(connection: AIOKafkaConnection) -> None:
    """Turn a connection that has just been made into a DirectConnection."""
    connection.__class__ = DirectConnection
    reader, protocol = connection._reader, connection._protocol
    if reader._buffer or connection._requests:
        # No broker sends what it was not asked for.
        return
    connection._read_task.cancel()
    reader.__class__, protocol.__class__ = _FrameReader, _FrameProtocol
    reader.prepare()
    connection._writer.transport.set_protocol(protocol)
    connection._read_task = connection._create_reader_task()
