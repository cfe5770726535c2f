"""Many jobs and many pages that follow them: each job is described once, and others are served meanwhile."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline.gateway.event_stream import _events
from shardline.gateway.progress_texts import ProgressTexts
from shardline_common.job.names import CHECKPOINTS
from shardline_common.job.state import JobState, State, checkpoint
from tests.gateway.inprocess import Gateway, gateway_in_memory
from tests.make import job

JOBS, STREAMS = 300, 10


async def filled(gateway: Gateway) -> None:
    """Publish many jobs that have ended."""
    states = [
        JobState(job(job_id=f"job-{number}"), state=State.FAILED, message="db:5432 is away")
        for number in range(JOBS)
    ]
    await gateway.broker.publish(CHECKPOINTS, [checkpoint(state) for state in states])
    async with asyncio.timeout(60):
        while len(gateway.context.jobs.jobs()) < JOBS:
            await asyncio.sleep(0.01)


async def read(events: AsyncGenerator[bytes, None], count: int) -> dict[str, Any]:
    """Read so many progress events: the last one of each job."""
    found: dict[str, Any] = {}
    seen = 0
    async with asyncio.timeout(60):
        while seen < count:
            chunk = await anext(events)
            if chunk.startswith(b"event: progress"):
                body = orjson.loads(chunk.partition(b"data: ")[2])
                found[body["job_id"]] = body
                seen += 1
    return found


async def test_streams_of_events_share_what_they_say_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    make = ProgressTexts.make

    def counted(self: ProgressTexts, view: Any, *rest: Any) -> bytes:
        made.append(view.state.spec.job_id)
        return make(self, view, *rest)

    monkeypatch.setattr(ProgressTexts, "make", counted)
    async with gateway_in_memory(tmp_path) as gateway:
        await filled(gateway)
        streams = [_events(gateway.context, None) for _ in range(STREAMS)]
        for found in await asyncio.gather(*(read(stream, JOBS) for stream in streams)):
            assert len(found) == JOBS
            assert {one["message"] for one in found.values()} == {"… is away"}
        # Streams that run at the same time may make one of them twice.
        assert JOBS <= len(made) <= 2 * JOBS
        made.clear()
        # A job that changes is sent again, alone, and from a new read of the topics.
        await gateway.accepted(job(job_id="job-7"), State.RUNNING)
        for found in await asyncio.gather(*(read(stream, 1) for stream in streams)):
            assert [(one["job_id"], one["state"]) for one in found.values()] == [("job-7", "running")]
        assert set(made) == {"job-7"}
        for stream in streams:
            await stream.aclose()


async def test_others_are_served_while_many_jobs_are_described(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        await filled(gateway)
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.ensure_future(turn())
        async with aclosing(_events(gateway.context, None)) as events:
            await read(events, JOBS)
        turning.cancel()
        assert turns >= JOBS // 30
