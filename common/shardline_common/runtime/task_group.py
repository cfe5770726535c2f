"""A TaskGroup that never drops a cancel, on every supported Python."""

import asyncio
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context
from types import TracebackType, coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class UnrequestedCancel(Exception):
    """A call was cancelled although nobody had cancelled its task: a client let a cancel of its own out."""

    def __init__(self) -> None:
        super().__init__("a call was cancelled from inside, by the library that it uses")


def cancel_requested() -> bool:
    """Whether somebody has cancelled the running task. If not, a CancelledError in it came from inside."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def no_foreign_cancel() -> Iterator[None]:
    """Raise UnrequestedCancel for a CancelledError of the body that nobody has requested."""
    try:
        yield
    except asyncio.CancelledError as error:
        if cancel_requested():
            raise
        raise UnrequestedCancel from error


class TaskGroup(asyncio.TaskGroup):
    """As `asyncio.TaskGroup`, with two faults of Python 3.11 and 3.12 mended, and one trap removed.

    - A cancel of the parent that comes while a task of the group fails is dropped: the group raises the
      errors of its tasks instead. A loop that handles them would never end, and with it everything that
      waits for its end. Here CancelledError is raised.
    - A task that fails while the parent waits at the end of the block leaves `Task.cancelling` of the parent
      at one too many. Every later group and time-out of that task would take it for a cancel.
    - A task that is cancelled by nobody, because a client raised CancelledError, ends without a word, and the
      rest of the group waits for it for ever. Here it fails with UnrequestedCancel.
    """

    def __init__(self) -> None:
        super().__init__()
        self._children: set[asyncio.Task[Any]] = set()

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start a task that the block waits for."""
        task = super().create_task(_without_foreign_cancels(coro), name=name, context=context)
        self._children.add(task)
        task.add_done_callback(self._children.discard)
        # A task that is cancelled before its first step never awaits it.
        task.add_done_callback(lambda _: coro.close())
        return task

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the tasks.

        Raises:
            BaseExceptionGroup: the errors of the tasks and the block.
            asyncio.CancelledError: the parent was cancelled.
        """
        if error is None:
            # As part of the block: only there does every Python take back the cancel by which a failed task
            # ends this wait.
            try:
                while self._children:
                    await asyncio.wait(self._children)
            except asyncio.CancelledError as cancelled:
                kind, error, traceback = type(cancelled), cancelled, cancelled.__traceback__
        try:
            await super().__aexit__(kind, error, traceback)
        except BaseExceptionGroup:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None
            raise


async def _without_foreign_cancels(coro: Generator[Any, None, T] | Coroutine[Any, Any, T]) -> T:
    with no_foreign_cancel():
        result: T = await _awaitable(coro)
    return result


@coroutine
def _awaitable(coro: Any) -> Generator[Any, None, Any]:
    return (yield from coro)
