"""Closing clients whose own cancels and ours get into each other's way."""

import asyncio

import pytest

from common.aio import let_go


async def helper(*, catches: bool) -> None:
    """A client's helper task, which knows one reason only to be cancelled."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not catches:
            raise


async def test_the_cancel_of_a_clients_own_helper_is_not_ours() -> None:
    async def close() -> None:
        waiting = asyncio.create_task(helper(catches=False))
        await asyncio.sleep(0)
        waiting.cancel()
        await waiting

    assert await let_go(close) is False
    assert await let_go(lambda: asyncio.sleep(0)) is True


@pytest.mark.parametrize("catches", [True, False])
async def test_a_cancel_of_ours_is_not_lost_in_a_helper(catches: bool) -> None:
    closing = asyncio.Event()

    async def close() -> None:
        waiting = asyncio.create_task(helper(catches=catches))
        await asyncio.sleep(0)
        closing.set()
        await waiting

    ours = asyncio.create_task(let_go(close))
    await closing.wait()
    ours.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ours
    assert ours.cancelled()


async def test_a_close_within_our_own_cancel_lets_that_go_on() -> None:
    closed: list[bool] = []

    async def work() -> None:
        async def close() -> None:
            waiting = asyncio.create_task(helper(catches=False))
            await asyncio.sleep(0)
            waiting.cancel()
            await waiting

        try:
            await asyncio.Event().wait()
        finally:
            closed.append(await let_go(close))

    ours = asyncio.create_task(work())
    await asyncio.sleep(0)
    ours.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ours
    assert closed == [False]
