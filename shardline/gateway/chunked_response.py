"""Answers that are made while they are sent: as fast as the client takes them, and never quietly shorter."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from enum import StrEnum

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from shardline.gateway.problems import Problem, from_error
from shardline_common.errors import ShardlineError

_log = logging.getLogger("shardline.gateway")


class Ending(StrEnum):
    """How a stream ended."""

    COMPLETE = "complete"
    REFUSED = "refused"
    ABORTED = "aborted"
    CLIENT_GONE = "client_gone"
    STALLED = "stalled"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What is streamed: `pieces` makes it (some may be empty), `slot` is held meanwhile.

    `stall` seconds without the client taking anything end the stream; `ended` hears how it ended.
    """

    pieces: Callable[[], AsyncGenerator[bytes, None]]
    slot: AbstractContextManager[None]
    stall: float
    ended: Callable[[Ending], None] = lambda _: None


class PieceStream(Response):
    """Sends pieces. The status waits for the first one, so that what is wrong from the start is told.

    A stream that fails later is left without its end: no client can take it for the whole.
    """

    def __init__(
        self, plan: StreamPlan, media_type: str, headers: Mapping[str, str], status_code: int = 200
    ) -> None:
        super().__init__(status_code=status_code, headers=dict(headers), media_type=media_type)
        if "content-length" not in {name.lower() for name in headers}:
            del self.headers["content-length"]
        self._plan = plan
        self._started = False

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Stream until the end, an error, or until the client is gone: then the source is closed at once."""
        ending = Ending.ABORTED
        try:
            with self._plan.slot:
                ending = await self._run(receive, send)
        except Problem:
            ending = Ending.REFUSED
            raise
        except asyncio.CancelledError:
            ending = Ending.STOPPED
            raise
        finally:
            self._plan.ended(ending)

    async def _run(self, receive: Receive, send: Send) -> Ending:
        body = asyncio.ensure_future(self._send_all(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((body, gone), return_when=asyncio.FIRST_COMPLETED)
            if not body.done():
                return Ending.CLIENT_GONE
            body.result()
        except ShardlineError as error:
            if self._started:
                _log.error("the stream was cut off: %s", error)
                return Ending.ABORTED
            raise from_error(error) from error
        except TimeoutError:
            _log.warning("the client took nothing for %.0f s; it was cut off", self._plan.stall)
            return Ending.STALLED
        finally:
            for task in (body, gone):
                task.cancel()
            await asyncio.gather(body, gone, return_exceptions=True)
        return Ending.COMPLETE

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._plan.pieces()) as pieces:
            async for piece in pieces:
                if not self._started:
                    await self._begin(send)
                if piece:
                    await self._send(send, piece, more=True)
        if not self._started:
            await self._begin(send)
        await self._send(send, b"", more=False)

    async def _begin(self, send: Send) -> None:
        self._started = True
        start: Message = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        async with asyncio.timeout(self._plan.stall):
            await send({"type": "http.response.body", "body": body, "more_body": more})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
