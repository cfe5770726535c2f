"""Deciding on a worker: it goes on where another one stopped, in bounded memory, and can be cancelled."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shardline_common.assembly import engine as engine_module
from shardline_common.assembly.engine import DecisionInterrupted, Engine
from shardline_common.dataset.assembled import read_head
from shardline_common.dataset.decision_rules import Rules
from shardline_common.dataset.stage_events import Stage, stage_of
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing, StoreUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.plan import Plan
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Message, Record
from shardline_common.ports.store import Body
from shardline_consumer.assembly import step_progress
from shardline_consumer.assembly.deciding import decide
from shardline_consumer.assembly.final_shard import fetch_list
from shardline_consumer.assembly.landed import SidecarFolder, read_landed
from shardline_consumer.assembly.step_progress import StepProgress
from shardline_consumer.commit import SegmentSink
from tests.staged import EVERYTHING, Item, assembled_job, land, messages, sink_of

SPEC = assembled_job(
    **EVERYTHING | {"quality": {"min_score": 0.2, "duplicate_ids": "first"}},
    output={"splits": {"train": 0.9, "validation": 0.1, "exact": True}, "shards": {"count": 2}},
)
LAYOUT = Layout.of(SPEC)
STEPS = Rules.of(SPEC, ()).steps
ITEMS = [
    Item("row", f"d{n % 35}", f"dies ist der Text Nummer {n % 20} von vielen anderen Texten")
    for n in range(40)
]


@pytest.fixture
async def landed(tmp_path: Path) -> MemoryStore:
    store = MemoryStore()
    await land(sink_of(store, tmp_path, SPEC), messages(ITEMS), iter(()))
    await store.create(LAYOUT.plan, Plan([], {}).encode())
    return store


async def decided(sink: SegmentSink) -> bytes:
    segments = await read_landed(sink)
    sidecars = SidecarFolder(sink, segments)
    await sidecars.open()
    try:
        head = await decide(sink, segments, sidecars)
    finally:
        await sidecars.close()
    assert (await read_head(sink.context.store, LAYOUT))[0] == head
    return head.encode()


class Dies(Exception):
    """The process ended."""


class Watched(MemoryStore):
    """Calls `on_create` before each create, and refuses whole reads of what is as large as a dataset."""

    large = (LAYOUT.steps, f"{LAYOUT.state}decision/drops/")

    def __init__(self, other: MemoryStore, on_create: Callable[[str], Awaitable[None]]) -> None:
        super().__init__()
        self._objects = MemoryStore.copy_of(other)._objects
        self._on_create = on_create

    async def get(self, key: str) -> bytes:
        assert not key.startswith(self.large), f"{key} is read as one body"
        return await super().get(key)

    async def stream(self, key: str, *, offset: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        async for chunk in MemoryStore.copy_of(self).stream(key, offset=offset, size=size):
            yield chunk

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:
        assert not (isinstance(body, bytes) and key.startswith(self.large)), f"{key} is put as one body"
        await self._on_create(key)
        await super().create(key, body, content_type=content_type)


async def test_a_decision_goes_on_behind_each_step_that_another_worker_stored(
    tmp_path: Path, landed: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    read = engine_module._text

    def noted(name: str) -> str:
        statements.append(name)
        return read(name)

    monkeypatch.setattr(engine_module, "_text", noted)

    async def nothing(_: str) -> None:
        pass

    expected = await decided(sink_of(Watched(landed, nothing), tmp_path, SPEC))
    whole, stored, before = len(statements), Watched(landed, nothing), len(statements) + 1
    for number, step in enumerate(STEPS[1:], 1):

        async def die_at(key: str, step: str = step) -> None:
            if key == LAYOUT.step(step):
                raise Dies

        stored, statements[:] = Watched(stored, die_at), []
        with pytest.raises(Dies):
            await decided(sink_of(stored, tmp_path, SPEC))
        found = [info.key async for info in stored.list(LAYOUT.steps)]
        assert sorted(found) == sorted(map(LAYOUT.step, STEPS[:number]))
    statements[:] = []
    assert await decided(sink_of(Watched(stored, nothing), tmp_path, SPEC)) == expected
    # Of the statements that make the first steps, none is run again; the last step and the lists are made.
    made = {"find_ids", "find_exact", "band", "component_round", "sample_keys"}
    assert not made & set(statements)
    assert "place_rows" in statements
    assert len(statements) < whole < before


class Lying(MemoryStore):
    """Answers the first so many reads of a key with other bytes."""

    def __init__(self, other: MemoryStore, key: str, times: int) -> None:
        super().__init__()
        self._objects = MemoryStore.copy_of(other)._objects
        self._key, self._times = key, times

    async def stream(self, key: str, *, offset: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        lies = key == self._key and self._times > 0
        self._times -= lies
        async for chunk in super().stream(key, offset=offset, size=size):
            yield chunk[:-3] + b"x" + chunk[-2:] if lies else chunk


@pytest.mark.parametrize(("times", "damaged"), [(1, False), (99, True)])
async def test_one_damaged_answer_about_a_result_or_a_list_is_no_fact_about_it(
    tmp_path: Path, landed: MemoryStore, times: int, damaged: bool
) -> None:
    expected = await decided(sink_of(landed, tmp_path, SPEC))
    head, _ = await read_head(landed, LAYOUT)
    (name, listed), *_ = head.drop_lists().items()
    key = LAYOUT.drops(*name)
    fetch = partial(fetch_list, sink_of(Lying(landed, key, times), tmp_path, SPEC), key, listed, tmp_path)
    await landed.delete([LAYOUT.decision])
    again = partial(decided, sink_of(Lying(landed, LAYOUT.step("pairs"), times), tmp_path, SPEC))
    if damaged:
        for call in (fetch, again):
            with pytest.raises(JobFailed) as caught:
                await call()
            assert caught.value.code is FailureCode.DATASET_DAMAGED
        return
    assert (await fetch() or tmp_path).read_bytes() == await landed.get(key)
    assert await again() == expected


async def test_rows_that_the_store_lost_are_named_before_anything_is_decided(
    tmp_path: Path, landed: MemoryStore
) -> None:
    sink = sink_of(landed, tmp_path, SPEC)
    await landed.delete([LAYOUT.staged(0, 0)])
    with pytest.raises(JobFailed, match=r"part-00000-000000000000.jsonl is not in the store") as caught:
        await decided(sink)
    assert caught.value.code is FailureCode.OBJECT_LOST
    assert [info async for info in landed.list(LAYOUT.steps)] == []
    with pytest.raises(ObjectMissing):
        await landed.get(LAYOUT.decision)


@pytest.mark.parametrize("tries", [1, 2])
async def test_a_cancel_while_the_store_is_away_ends_the_decision(
    tmp_path: Path, landed: MemoryStore, tries: int
) -> None:
    asked = asyncio.Semaphore(0)

    async def away(key: str) -> None:
        if key == LAYOUT.step("pairs"):
            asked.release()
            raise StoreUnavailable("the store is away")

    task = asyncio.create_task(decided(sink_of(Watched(landed, away), tmp_path, SPEC)))
    for _ in range(tries):
        await asyncio.wait_for(asked.acquire(), 60)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=60)
    assert done
    assert task.cancelled()


async def test_a_cancel_interrupts_the_running_statement(
    tmp_path: Path, landed: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, begun = engine_module._text, threading.Event()

    def endless(name: str) -> str:
        if name != "band":
            return read(name)
        begun.set()
        return "SELECT count(*) FROM range(1000000000000) AS numbers(n) WHERE n * n % 7 = 3"

    monkeypatch.setattr(engine_module, "_text", endless)
    sink = sink_of(landed, tmp_path, SPEC)
    task = asyncio.create_task(decided(sink))
    await asyncio.to_thread(begun.wait, 60)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=60)
    assert done
    assert task.cancelled()
    # What was decided before stays for the next worker, and nothing is left in the spool.
    assert sorted([info.key async for info in landed.list(LAYOUT.steps)]) == [
        LAYOUT.step(name) for name in ("exact", "ids")
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_progress_of_a_statement_rises_and_is_nothing_beside_one(tmp_path: Path) -> None:
    engine, found = Engine(tmp_path / "engine", 64 << 20, 1), list[float]()
    assert engine.progress() == 0.0

    def run() -> None:
        with pytest.raises(DecisionInterrupted):
            engine.rows("SELECT count(*) FROM range(20000000000) AS numbers(n) WHERE n * n % 7 = 3")

    thread = threading.Thread(target=run)
    thread.start()
    while len(found) < 3 and thread.is_alive():
        if (share := engine.progress()) > (found[-1] if found else 0.0):
            found.append(share)
        time.sleep(0.01)
    engine.interrupt()
    thread.join(60)
    assert len(found) == 3
    assert found[-1] < 1.0
    assert engine.progress() == 0.0
    engine.close()
    assert engine.progress() == 0.0


async def test_the_running_step_is_published_and_never_falls_back(
    tmp_path: Path, landed: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = sink_of(landed, tmp_path, SPEC)
    published: list[Message] = []

    async def publish(_topic: str, found: list[Message]) -> None:
        published.extend(found)

    monkeypatch.setattr(sink.context.broker, "publish", publish)
    estimates: list[Any] = [
        ("ids", 0, 1, 0.5),
        ("ids", 0, 1, 0.25),
        ("pairs", 1, 3, 0.5),
        ("drops", 0, 1, 0.0),
    ]
    shares: list[float] = []
    progress = StepProgress(sink, STEPS, lambda: shares[-1])

    async def sleep(_: float) -> None:
        if not estimates:
            raise Dies
        step, done, parts, share = estimates.pop(0)
        shares.append(share)
        progress.begin(step, done, parts)

    monkeypatch.setattr(type(sink.context.clock), "sleep", lambda _self, seconds: sleep(seconds))
    monkeypatch.setattr(step_progress, "_LOG_SECONDS", 0.0)
    with caplog.at_level("INFO"), pytest.raises(Dies):
        await progress.publish()
    records = [Record(0, 0, one.key, one.value, one.headers) for one in published]
    events = [event for record in records if (event := stage_of(record)) is not None]
    assert len(events) == len(records)
    assert all(event.stage is Stage.DECIDING and event.parts == len(STEPS) + 1 for event in events)
    assert [(event.done, event.step, event.step_share) for event in events] == [
        (0, "ids", 0.5),
        (2, "pairs", 0.5),
        (len(STEPS), "drops", 0.0),
    ]
    assert [event.rank for event in events] == sorted(event.rank for event in events)
    assert "step pairs, 50 %" in caplog.text
