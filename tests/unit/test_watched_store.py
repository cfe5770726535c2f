"""While requests to the store of datasets fail, the process says so, whoever repeats them."""

import asyncio

import pytest

from shardline_common.errors import ObjectExists, ObjectMissing, StoreRefused
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.runtime.retry import longest_failing
from shardline_common.storage import watched
from shardline_common.storage.watched import WatchedStore

CLOCK = SystemClock()


class Faulty:
    """A memory store that can be made to refuse."""

    def __init__(self) -> None:
        self.refuses = False
        self.store = WatchedStore(MemoryStore(self._fault), CLOCK)

    def _fault(self, when: str, _operation: str, _key: str) -> None:
        if self.refuses and when == "before":
            raise StoreRefused("there is no bucket s3://gone", hint="create it")


async def use_all(store: WatchedStore) -> None:
    for call in (store.get("a"), store.create("b", b""), store.delete(["c"])):
        with pytest.raises(StoreRefused):
            await call
    for chunks in (store.stream("a"), store.list("")):
        with pytest.raises(StoreRefused):
            await anext(chunks)


async def test_failing_requests_are_named_until_one_succeeds() -> None:
    faulty = Faulty()
    await faulty.store.create("a", b"1")
    faulty.refuses = True
    await use_all(faulty.store)
    failing = longest_failing(CLOCK)
    assert failing is not None
    assert failing.what == "requests to memory://"
    assert failing.reason == "there is no bucket s3://gone; create it"
    faulty.refuses = False
    with pytest.raises(ObjectExists):
        await faulty.store.create("a", b"1")
    assert longest_failing(CLOCK) is None
    faulty.refuses = True
    await use_all(faulty.store)
    faulty.refuses = False
    with pytest.raises(ObjectMissing):
        await faulty.store.get("b")
    assert longest_failing(CLOCK) is None
    assert [info.key async for info in faulty.store.list("")] == ["a"]
    assert [chunk async for chunk in faulty.store.stream("a")] == [b"1"]


async def test_a_failure_that_nobody_repeats_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_FORGET_SECONDS", 0.02)
    faulty = Faulty()
    faulty.refuses = True
    await use_all(faulty.store)
    assert longest_failing(CLOCK) is not None
    async with asyncio.timeout(10):
        while longest_failing(CLOCK) is not None:
            await asyncio.sleep(0.01)
