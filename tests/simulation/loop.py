"""An event loop whose time is virtual and whose order of steps is drawn from a seed."""

import asyncio
import gc
import itertools
import random
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Semaphore, get_ident
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
# How long the call of a thread may take between two turns, in virtual seconds.
_TURN_SECONDS = 2.0


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


class _ThreadCall:
    """A call on a thread of its own, for one that waits for coroutines of the loop.

    Loop and thread take turns, so a schedule stays a function of its seed: the thread runs while the loop
    waits, until the call ends or wants a coroutine; its next turn comes when that one has ended.
    """

    def __init__(self, loop: "SimLoop", call: Callable[[], Any], ended: asyncio.Future[Any]) -> None:
        self._loop = loop
        self._call = call
        self._ended = ended
        self._own_turn, self._turn_of_loop = Semaphore(0), Semaphore(0)
        self._end: Callable[[], None] | None = None

    def run(self) -> None:
        """Make the call. On its thread."""
        self._own_turn.acquire()
        self._loop.thread_calls[get_ident()] = self
        try:
            self._end = partial(self._ended.set_result, self._call())
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            self._end = partial(self._ended.set_exception, error)
        finally:
            del self._loop.thread_calls[get_ident()]
            self._turn_of_loop.release()

    def take_turn(self) -> None:
        """Let the thread run until it gives the turn back. On the loop."""
        self._own_turn.release()
        self._turn_of_loop.acquire()
        if self._end is not None and not self._ended.done():
            self._end()

    def wait_for(self, coroutine: Future[Any]) -> None:
        """Give the turn to the loop until a coroutine has ended, and for a while longer. On the thread."""
        coroutine.add_done_callback(lambda _: self._loop.call_thread(self))
        self._turn_of_loop.release()
        self._own_turn.acquire()


class SimLoop(asyncio.SelectorEventLoop):
    """Time moves when nothing is ready; what is ready runs in an order that the dice decide."""

    def __init__(self, dice: random.Random) -> None:
        self.now = 0.0
        self.thread_calls: dict[int, _ThreadCall] = {}
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
        """A thread calls only in its turn, while the loop waits."""
        return self.call_soon(callback, *args, **more)

    def run_in_executor(  # type: ignore[override]  # typeshed's TypeVarTuple is not ours
        self,
        executor: Executor | None,
        func: Callable[..., T],
        *args: Any,
    ) -> asyncio.Future[T]:
        """Blocking calls run in a later step, as those of a thread end in one.

        An executor is given for a call that waits for coroutines: it gets a thread.
        """
        future: asyncio.Future[T] = self.create_future()
        if executor is not None:
            call = _ThreadCall(self, partial(func, *args), future)
            executor.submit(call.run)
            self.call_thread(call)
            return future

        def run() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised where it is awaited
                future.set_exception(error)

        self.call_soon(run)
        return future

    def call_thread(self, call: _ThreadCall) -> None:
        """Give the call of a thread its next turn, after a while."""
        self.call_later(self._dice.uniform(0, _TURN_SECONDS), call.take_turn)

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


def _run_coroutine_threadsafe(coro: Coroutine[Any, Any, T], loop: SimLoop) -> Future[T]:
    """As asyncio's. The thread gives its turn to the loop while it waits for the result."""
    future = _RUN_COROUTINE_THREADSAFE(coro, loop)
    real = future.result

    def result(timeout: float | None = None) -> T:
        if not future.done():
            loop.thread_calls[get_ident()].wait_for(future)
        return real(timeout)

    future.result = result  # type: ignore[method-assign]  # the coroutine runs when the loop has its turn
    return future


_RUN_COROUTINE_THREADSAFE = asyncio.run_coroutine_threadsafe


def taking_turns() -> Any:
    """The threads of a SimLoop give their turn to it while they wait for its coroutines."""
    return patch.object(asyncio, "run_coroutine_threadsafe", _run_coroutine_threadsafe)


def simulate(seed: int, main: Callable[[random.Random], Coroutine[Any, Any, T]]) -> T:
    """Run `main` to its end, the same way every time for the same seed."""
    dice = random.Random(seed)
    random.seed(seed)
    loop = SimLoop(dice)
    # Generators must be closed when they are dropped, not when memory happens to be short.
    gc.disable()
    with taking_turns():
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
