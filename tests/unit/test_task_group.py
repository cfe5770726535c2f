"""A cancel of the parent is never dropped, and none is left behind."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shardline_common.runtime.task_group import TaskGroup, UnrequestedCancel


class WrongError(Exception):
    pass


def cancels() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def fail_after(steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)
    raise WrongError


async def fail_when_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise WrongError from None


async def fail_in_a_group(steps: int, waits: bool) -> None:
    async with TaskGroup() as tasks:
        tasks.create_task(fail_after(steps))
        tasks.create_task(fail_when_cancelled())
        if waits:
            await asyncio.Event().wait()


@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("waits", [True, False], ids=["in the block", "at its end"])
async def test_an_error_leaves_no_cancel_behind(steps: int, waits: bool) -> None:
    for _ in range(3):
        with pytest.raises(ExceptionGroup) as caught:
            await fail_in_a_group(steps, waits)
        assert [type(error) for error in caught.value.exceptions] == [WrongError, WrongError]
        assert cancels() == 0
    async with asyncio.timeout(5):
        await asyncio.sleep(0)


async def test_an_error_of_the_block_ends_the_tasks() -> None:
    running: list[asyncio.Task[bool]] = []

    async def body() -> None:
        async with TaskGroup() as tasks:
            running.append(tasks.create_task(asyncio.Event().wait()))
            raise WrongError

    with pytest.raises(ExceptionGroup) as caught:
        await body()
    assert [type(error) for error in caught.value.exceptions] == [WrongError]
    assert running[0].cancelled()


async def test_tasks_that_tasks_start_are_awaited() -> None:
    done: list[int] = []

    async def work(left: int) -> None:
        await asyncio.sleep(0)
        done.append(left)
        if left:
            tasks.create_task(work(left - 1))

    async with TaskGroup() as tasks:
        tasks.create_task(work(5))
    assert done == [5, 4, 3, 2, 1, 0]


async def at_the_end() -> None:
    async with TaskGroup() as tasks:
        tasks.create_task(fail_when_cancelled())


async def in_the_block() -> None:
    async with TaskGroup() as tasks:
        tasks.create_task(fail_when_cancelled())
        await asyncio.Event().wait()


async def while_a_task_fails() -> None:
    async with TaskGroup() as tasks:
        tasks.create_task(fail_after(3))


async def while_a_task_fails_in_the_block() -> None:
    async with TaskGroup() as tasks:
        tasks.create_task(fail_after(3))
        await asyncio.sleep(0)
        await asyncio.Event().wait()


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize(
    "body", [at_the_end, in_the_block, while_a_task_fails, while_a_task_fails_in_the_block]
)
async def test_a_cancel_ends_a_loop_whose_errors_are_handled(
    body: Callable[[], Awaitable[None]], steps: int
) -> None:
    async def loop() -> None:
        while True:
            try:
                await body()
            except* WrongError:
                pass

    task = asyncio.ensure_future(loop())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("body", [at_the_end, in_the_block])
async def test_a_time_out_is_a_time_out(body: Callable[[], Awaitable[None]]) -> None:
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await body()
        assert cancels() == 0
        await asyncio.sleep(0)


async def test_a_task_that_is_cancelled_by_nobody_fails_the_group() -> None:
    async def cancelled_inside() -> None:
        raise asyncio.CancelledError

    async def body() -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(cancelled_inside())
            await asyncio.Event().wait()

    async with asyncio.timeout(20):
        with pytest.raises(ExceptionGroup) as caught:
            await body()
    assert [type(error) for error in caught.value.exceptions] == [UnrequestedCancel]
    assert cancels() == 0


async def test_a_task_that_is_cancelled_before_its_first_step_is_closed() -> None:
    async with TaskGroup() as tasks:
        # A warning about a coroutine that was never awaited would fail this test.
        tasks.create_task(asyncio.sleep(60)).cancel()
