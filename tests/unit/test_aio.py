"""Threads, and clients that start and close: no cancel cuts them short, none is lost."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import BinaryIO

import pytest

from shardline_common.runtime.tasks import close_shielded, start_shielded
from shardline_common.runtime.threads import open_to_read, run_in_thread


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

    await close_shielded(close)


@pytest.mark.parametrize("catches", [True, False])
async def test_a_cancel_of_ours_is_not_lost_in_a_helper(
    monkeypatch: pytest.MonkeyPatch, catches: bool
) -> None:
    monkeypatch.setattr("shardline_common.runtime.tasks._GRACE_SECONDS", 0.01)
    closing = asyncio.Event()

    async def close() -> None:
        waiting = asyncio.create_task(helper(catches=catches))
        await asyncio.sleep(0)
        closing.set()
        await waiting

    ours = asyncio.create_task(close_shielded(close))
    await closing.wait()
    ours.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ours
    assert ours.cancelled()


async def test_a_close_within_our_own_cancel_lets_that_go_on() -> None:
    steps: list[str] = []

    async def work() -> None:
        async def close() -> None:
            waiting = asyncio.create_task(helper(catches=False))
            await asyncio.sleep(0)
            waiting.cancel()
            await waiting

        try:
            await asyncio.Event().wait()
        finally:
            await close_shielded(close)
            steps.append("closed")

    ours = asyncio.create_task(work())
    await asyncio.sleep(0)
    ours.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ours
    assert steps == ["closed"]


@pytest.mark.parametrize("outlasting", [start_shielded, close_shielded])
@pytest.mark.parametrize("cancels", [1, 2, 5])
async def test_cancels_do_not_cut_it_short(
    outlasting: Callable[[Callable[[], Awaitable[object]]], Coroutine[None, None, None]], cancels: int
) -> None:
    steps: list[str] = []
    may_end = asyncio.Event()

    async def call() -> None:
        steps.append("start_shielded")
        await may_end.wait()
        steps.append("ended")

    ours = asyncio.create_task(outlasting(call))
    for _ in range(cancels):
        await asyncio.sleep(0)
        ours.cancel()
    await asyncio.sleep(0)
    assert steps == ["start_shielded"]
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await ours
    assert steps == ["start_shielded", "ended"]
    assert ours.cancelled()


@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_cancel_waits_for_the_thread_and_closes_what_it_opened(cancels: int, tmp_path: Path) -> None:
    may_open, opened = threading.Event(), []

    def call() -> BinaryIO:
        may_open.wait()
        opened.append((tmp_path / "file").open("wb"))
        return opened[0]

    ours = asyncio.create_task(run_in_thread(call, lambda file: file.close()))
    for _ in range(cancels):
        await asyncio.sleep(0)
        ours.cancel()
    await asyncio.sleep(0)
    assert not ours.done()
    may_open.set()
    with pytest.raises(asyncio.CancelledError):
        await ours
    assert opened[0].closed


async def test_a_file_is_opened_and_one_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    with await open_to_read(tmp_path / "file") as file:
        assert file.read() == b"text"
    with pytest.raises(FileNotFoundError):
        await open_to_read(tmp_path / "other")


async def test_a_start_that_does_not_end_is_cancelled_after_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardline_common.runtime.tasks._GRACE_SECONDS", 0.01)
    helping = asyncio.create_task(helper(catches=False))
    ours = asyncio.create_task(start_shielded(lambda: helping))
    await asyncio.sleep(0)
    ours.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ours
    assert helping.cancelled()


async def test_a_start_that_fails_tells_why() -> None:
    async def start() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await start_shielded(start)
