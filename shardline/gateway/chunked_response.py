"""Streamed responses: sent at the speed of the client, and aborted visibly when the source fails."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from enum import StrEnum

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from shardline.gateway.http_protocol import STREAMED
from shardline.gateway.problems import Problem, problem_from_error
from shardline_common.errors import ShardlineError

_log = logging.getLogger("shardline.gateway")


class StreamOutcome(StrEnum):
    """How a stream ended."""

    COMPLETE = "complete"
    REFUSED = "refused"
    ABORTED = "aborted"
    CLIENT_GONE = "client_gone"
    STALLED = "stalled"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """The body of a streamed response, and its limits.

    Attributes:
        chunks: makes the body; some chunks may be empty.
        slot: entered while the stream is open.
        stall_seconds: the stream ends when the client reads nothing for this time.
        on_end: called once, with the outcome.
    """

    chunks: Callable[[], AsyncGenerator[bytes, None]]
    slot: AbstractContextManager[None]
    stall_seconds: float
    on_end: Callable[[StreamOutcome], None] = lambda _: None


class ChunkedResponse(Response):
    """Streams chunks. The status is sent with the first chunk, so an error before it has its own status.

    When the source fails later, the last chunk is not sent. The client sees a broken body, and cannot mistake
    the received part for the whole.
    """

    def __init__(
        self, stream: StreamSpec, media_type: str, headers: Mapping[str, str], status_code: int = 200
    ) -> None:
        super().__init__(status_code=status_code, headers=dict(headers), media_type=media_type)
        if "content-length" not in {name.lower() for name in headers}:
            del self.headers["content-length"]
        self._stream = stream
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response and report its outcome. A disconnect of the client closes the source at once."""
        outcome = StreamOutcome.ABORTED
        # The connection does not limit the time of the client: `stall_seconds` does.
        scope[STREAMED] = True
        try:
            with self._stream.slot:
                outcome = await self._run(receive, send)
        except Problem:
            outcome = StreamOutcome.REFUSED
            raise
        except asyncio.CancelledError:
            outcome = StreamOutcome.STOPPED
            raise
        finally:
            self._stream.on_end(outcome)

    async def _run(self, receive: Receive, send: Send) -> StreamOutcome:
        body = asyncio.ensure_future(self._send_all(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((body, gone), return_when=asyncio.FIRST_COMPLETED)
            if not body.done():
                return StreamOutcome.CLIENT_GONE
            body.result()
        except ShardlineError as error:
            if self._started:
                _log.error("the stream was aborted: %s", error)
                return StreamOutcome.ABORTED
            raise problem_from_error(error) from error
        except TimeoutError:
            _log.warning("the client read nothing for %.0f s; disconnected", self._stream.stall_seconds)
            return StreamOutcome.STALLED
        finally:
            for task in (body, gone):
                task.cancel()
            await asyncio.gather(body, gone, return_exceptions=True)
        return StreamOutcome.COMPLETE

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._stream.chunks()) as chunks:
            async for chunk in chunks:
                await self._send(send, chunk, more=True)
        await self._send(send, b"", more=False)

    async def _send(self, send: Send, chunk: bytes, *, more: bool) -> None:
        if not self._started:
            self._started = True
            start: Message = {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
            await send(start)
        if chunk or not more:
            async with asyncio.timeout(self._stream.stall_seconds):
                await send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
