"""Ports that raise at a chosen call of a chosen method. The methods are found by inspecting the protocols."""

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, cast, get_args, get_type_hints

from shardline_common.ports.broker import Broker, GroupReader, TableReader, Transaction, TransactionalWriter
from shardline_common.ports.store import ObjectStore
from shardline_producer.notifications.outbox import Receiver
from shardline_producer.sources.source import PlanPages, Source

PROTOCOLS: tuple[type, ...] = (
    *(ObjectStore, Broker, TransactionalWriter, Transaction, GroupReader, TableReader),
    *(Source, PlanPages, Receiver),
)


@dataclass(frozen=True, order=True)
class Call:
    """A method of a port, as one part of a process uses it.

    `moment` is "before" a call, "after" an item or the body of a context, or at the "end" of either.
    """

    role: str
    port: str
    method: str
    moment: str = "before"

    def __str__(self) -> str:
        return f"{self.role}: {self.port}.{self.method}, {self.moment}"


@dataclass
class Fault:
    """Raise at the `number`-th of these calls, and at every later one if it lasts."""

    call: Call
    number: int
    error: Callable[[], BaseException]
    lasts: bool = False


@dataclass
class Switchboard:
    """Counts the calls of all faulty ports of a run, and raises at the one that is meant."""

    fault: Fault | None = None
    counts: Counter[Call] = field(default_factory=Counter)
    raised: int = 0

    def pass_by(self, call: Call) -> None:
        """Count a call, and raise if it is the one."""
        self.counts[call] += 1
        fault = self.fault
        if fault is None or call != fault.call:
            return
        count = self.counts[call]
        if count == fault.number or (fault.lasts and count > fault.number):
            self.raised += 1
            raise fault.error()


@cache
def methods(protocol: type) -> tuple[str, ...]:
    """The public methods and properties of a protocol."""
    found = inspect.getmembers(protocol, lambda item: inspect.isfunction(item) or isinstance(item, property))
    return tuple(name for name, _ in found if not name.startswith("_"))


@cache
def opened_protocol(protocol: type, method: str) -> type | None:
    """The protocol of what the context manager yields that a method returns; None: it returns none."""
    function = inspect.getattr_static(protocol, method)
    hints = get_type_hints(function.fget if isinstance(function, property) else function)
    inner = get_args(hints.get("return"))
    return next((item for item in inner if item in PROTOCOLS), None)


class FaultyPort:
    """Implements a protocol by an object that does, and passes every call by a switchboard."""

    def __init__(self, inner: object, protocol: type, board: Switchboard, role: str) -> None:
        self._inner = inner
        self._protocol = protocol
        self._board = board
        self._role = role

    def __getattr__(self, name: str) -> Any:
        if name not in methods(self._protocol):
            raise AttributeError(name)
        pass_by = partial(self._pass_by, name)
        function = inspect.getattr_static(self._protocol, name)
        if isinstance(function, property):
            pass_by()
            return getattr(self._inner, name)
        call = getattr(self._inner, name)
        if inspect.iscoroutinefunction(function):
            return partial(_awaited, call, pass_by)
        opened = opened_protocol(self._protocol, name)
        if opened is not None:
            return partial(self._entered, call, pass_by, opened)
        result = get_type_hints(function)["return"]
        if getattr(result, "__aiter__", None) is not None:
            return partial(_iterated, call, pass_by)
        return partial(_called, call, pass_by)

    def _pass_by(self, name: str, moment: str = "before") -> None:
        self._board.pass_by(Call(self._role, self._protocol.__name__, name, moment))

    @asynccontextmanager
    async def _entered(
        self, call: Callable[..., Any], pass_by: Callable[..., None], opened: type, *args: Any, **more: Any
    ) -> AsyncIterator[object]:
        pass_by()
        async with call(*args, **more) as inner:
            yield FaultyPort(inner, opened, self._board, self._role)
            # Inside: a body that raised is not left by another error.
            pass_by("after")
        pass_by("end")


async def _awaited(call: Callable[..., Any], pass_by: Callable[..., None], *args: Any, **more: Any) -> object:
    pass_by()
    return await call(*args, **more)


async def _iterated(
    call: Callable[..., Any], pass_by: Callable[..., None], *args: Any, **more: Any
) -> AsyncIterator[object]:
    pass_by()
    async for item in call(*args, **more):
        yield item
        pass_by("after")
    pass_by("end")


def _called(call: Callable[..., Any], pass_by: Callable[..., None], *args: Any, **more: Any) -> object:
    pass_by()
    return call(*args, **more)


def all_calls() -> Iterator[tuple[str, str]]:
    """Port and method of every protocol."""
    for protocol in PROTOCOLS:
        for method in methods(protocol):
            yield protocol.__name__, method


def faulty(inner: object, protocol: type, board: Switchboard, role: str) -> Any:
    """The object behind a FaultyPort."""
    return cast("Any", FaultyPort(inner, protocol, board, role))
