"""Asking several brokers the same thing: the first good answer counts, and a silent broker costs a second.

A broker may accept connections and answer nothing, and one that continues after a pause answers from what it
knew before. So a question that any broker can answer goes to the next one when an answer fails, when it is
one that another broker may give better, or when it has not come after `PATIENCE_SECONDS`.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError, StaleMetadata

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
PATIENCE_SECONDS = 1.0
# With answers that were not accepted, the last brokers are waited for so long and no longer.
_REST_SECONDS = 2.0
# For so long a broker that did not answer is asked after the others.
_SILENT_SECONDS = 60.0
# These say that a broker was not reached, and nothing about the request.
UNREACHED = (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError, StaleMetadata, TimeoutError)


@dataclass(slots=True)
class Answered(Generic[T]):
    """What the brokers answered: `good` is the first accepted answer, `others` are those before it."""

    good: T | None = None
    others: list[T] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def best(self) -> T:
        """The accepted answer, else the last one. Raises the error that says most when there is no answer."""
        if self.good is not None:
            return self.good
        if self.others:
            return self.others[-1]
        telling = [error for error in self.errors if not isinstance(error, (*UNREACHED, ConnectionError))]
        raise (telling or self.errors or [NodeNotReadyError("no broker is known")])[0]


async def ask_in_turn(
    asks: Sequence[Callable[[], Awaitable[T]]],
    accept: Callable[[T], bool] = lambda _: True,
    patience: float | None = None,
) -> Answered[T]:
    """Ask one after the other, until one answer is accepted. The calls that are not needed are cancelled.

    The next one is asked when all before it have failed, were not accepted, or were silent for `patience`
    seconds (None: `PATIENCE_SECONDS`). Without an accepted answer, all have been asked, and had two more
    seconds.
    """
    patience = PATIENCE_SECONDS if patience is None else patience
    waiting, running, found = list(asks), set[asyncio.Future[T]](), Answered[T]()
    try:
        while found.good is None and (waiting or running):
            if waiting:
                running.add(asyncio.ensure_future(waiting.pop(0)()))
            timeout = patience if waiting else _REST_SECONDS if found.others else None
            done, running = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done and not waiting:
                break
            for each in done:
                _sort(each, found, accept)
    finally:
        for each in running:
            each.cancel()
        # Without waiting for them, their connections would be closed after their client.
        await asyncio.gather(*running, return_exceptions=True)
    return found


def _sort(done: asyncio.Future[T], found: Answered[T], accept: Callable[[T], bool]) -> None:
    if done.cancelled():
        found.errors.append(NodeNotReadyError("the client cancelled the request"))
    elif isinstance(error := done.exception(), Exception):
        found.errors.append(error)
    elif error is not None:
        raise error
    elif found.good is None and accept(done.result()):
        found.good = done.result()
    else:
        found.others.append(done.result())


class SilentBrokers:
    """The addresses at which no broker answered lately, shared by all clients of one adapter."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], float] = {}

    def silent(self, host: str, port: int) -> None:
        """No answer came from there."""
        self._since[host, port] = time.monotonic()

    def answered(self, host: str, port: int) -> None:
        """An answer came from there."""
        self._since.pop((host, port), None)

    def in_order(self, addresses: Iterable[tuple[K, str, int]]) -> list[K]:
        """The keys of the addresses in random order; those that did not answer lately are last."""
        after = time.monotonic() - _SILENT_SECONDS
        mixed = list(addresses)
        random.shuffle(mixed)
        return [key for key, _, _ in sorted(mixed, key=lambda one: self._since.get(one[1:], 0.0) > after)]
