"""A store that refuses a create for a key that it then does not find."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shardline_common.errors import FailureCode, JobFailed, ObjectExists, StoreUnavailable
from shardline_common.job.names import Layout, job_key
from shardline_common.job.outcome import Outcome, decide
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.runtime.create_or_read import create_or_get
from shardline_common.storage.directory import DirectoryStore
from shardline_producer.acceptance import accept
from shardline_producer.plan import plan_job
from shardline_producer.plan_pages import StoredPlanPages
from tests.make import job
from tests.simulation.simulated_source import MemorySource, documents

SPEC = job()
LAYOUT = Layout.of(SPEC)


class FastClock(SystemClock):
    """A clock whose time moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


def refusing(times: float = float("inf")) -> MemoryStore:
    """A store that refuses this number of creates, and has no object."""
    refused = 0

    def fault(when: str, operation: str, key: str) -> None:
        nonlocal refused
        if (when, operation) == ("before", "create") and refused < times:
            refused += 1
            raise ObjectExists(f"{key} exists")

    return MemoryStore(fault)


OUTCOME = Outcome(1, "cancelled", "2026-11-26T03:00:00.000Z", "", "0")
CREATES: dict[str, Callable[[MemoryStore, FastClock], Awaitable[object]]] = {
    job_key(SPEC.job_id): lambda store, clock: accept(store, SPEC, clock),
    LAYOUT.plan: lambda store, clock: plan_job(
        SPEC, MemorySource(documents(2), random.Random(1)), store, clock
    ),
    LAYOUT.plan_pages + "0.json": lambda store, clock: StoredPlanPages(
        store, LAYOUT.plan_pages, clock
    ).create_or_get("0.json", b"{}"),
    LAYOUT.outcome(1): lambda store, clock: decide(store, LAYOUT, OUTCOME, clock),
}


@pytest.mark.parametrize("key", CREATES)
async def test_a_refused_create_of_a_missing_object_fails_the_job(key: str) -> None:
    clock = FastClock()
    with pytest.raises(JobFailed) as failed:
        await CREATES[key](refusing(), clock)
    assert failed.value.code is FailureCode.STORE_INCONSISTENT
    assert key in str(failed.value)
    assert 30 <= clock.seconds < 40


@pytest.mark.parametrize("key", CREATES)
async def test_a_create_that_was_refused_for_a_while_is_repeated(key: str) -> None:
    store, clock = refusing(times=4), FastClock()
    await CREATES[key](store, clock)
    assert await store.get(key)
    assert 0 < clock.seconds < 30


async def test_a_store_that_fails_in_between_is_unavailable() -> None:
    def fault(_when: str, operation: str, key: str) -> None:
        raise ObjectExists(key) if operation == "create" else StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        await create_or_get(MemoryStore(fault), "a", b"", FastClock())


@pytest.mark.parametrize("obstacle", ["folder", "broken link", "file as a folder"])
async def test_what_is_no_object_in_its_place_fails_the_job(tmp_path: Path, obstacle: str) -> None:
    if obstacle == "folder":
        (tmp_path / "data" / "x").mkdir(parents=True)
    elif obstacle == "broken link":
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "x").symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / "data").write_text("a file")
    for key in ("data/x", "data/x/y") if obstacle == "file as a folder" else ("data/x",):
        with pytest.raises(JobFailed) as failed:
            await create_or_get(DirectoryStore(tmp_path), key, b"", FastClock())
        assert failed.value.code is FailureCode.STORE_INCONSISTENT
