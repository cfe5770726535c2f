"""An event loop whose time is virtual and whose order of steps is drawn from a seed."""

import asyncio
import gc
import itertools
import random
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Deadlock(Exception):
    """Nothing is ready and no timer runs: a deadlock."""


class _Selector(selectors.SelectSelector):
    """Instead of waiting it moves the clock."""

    loop: "SimLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock
        self.loop.now += max(0.0, timeout)
        return []


class _Task(asyncio.Task[Any]):
    """A task whose hash does not depend on its address, so that sets of tasks keep their order."""

    def __init__(self, coro: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.SelectorEventLoop):
    """Time moves when nothing is ready; what is ready runs in an order that the dice decide."""

    def __init__(self, dice: random.Random) -> None:
        self.now = 0.0
        self._dice = dice
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        numbers = itertools.count()
        self.set_task_factory(lambda loop, coro, **more: _Task(coro, next(numbers), loop=loop, **more))

    def time(self) -> float:
        """Seconds since the schedule began."""
        return self.now

    def call_soon_threadsafe(  # type: ignore[override]  # the stub's context is passed on by name
        self, callback: Callable[..., Any], *args: Any, **more: Any
    ) -> asyncio.Handle:
        """There are no threads here."""
        return self.call_soon(callback, *args, **more)

    def run_in_executor(  # type: ignore[override]  # typeshed's TypeVarTuple is not ours
        self,
        executor: Executor | None,  # noqa: ARG002 - there are no threads here
        func: Callable[..., T],
        *args: Any,
    ) -> asyncio.Future[T]:
        """Blocking calls run in a later step, as those of a thread end in one."""
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised where it is awaited
                future.set_exception(error)

        self.call_soon(run)
        return future

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]  # the only place where order can be drawn
        if len(ready) > 1:
            handles = list(ready)
            self._dice.shuffle(handles)
            ready.clear()
            ready.extend(handles)
        super()._run_once()  # type: ignore[misc]


class SimClock:
    """The loop's time as Shardline's clock."""

    def now(self) -> datetime:
        """Wall time, from a fixed day on."""
        return _EPOCH + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Virtual seconds."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait in virtual time."""
        await asyncio.sleep(seconds)


def simulate(seed: int, main: Callable[[random.Random], Coroutine[Any, Any, T]]) -> T:
    """Run `main` to its end, the same way every time for the same seed."""
    dice = random.Random(seed)
    random.seed(seed)
    loop = SimLoop(dice)
    # Generators must be closed when they are dropped, not when memory happens to be short.
    gc.disable()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main(dice))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
        gc.enable()
