"""Requests during the completion of a job: there is one outcome, and state, store and topics agree on it."""

import asyncio
import random
from pathlib import Path

import pytest

from shardline.services.job_view import JobView
from shardline_common.errors import ObjectMissing
from shardline_common.job.names import Layout, attempt_topic
from shardline_common.job.outcome import read_outcome
from shardline_common.job.spec import JobSpec, Request
from tests.e2e.system import System, running_system
from tests.faults.oracle import SHORT, judge_sample
from tests.sampled import Sampled
from tests.services import S3

JOBS = 3


async def ended(system: System, spec: JobSpec, attempt: int) -> JobView:
    """The job's view when an attempt is over and its topic removed."""
    return await system.until(
        spec.job_id, lambda view: view.state.attempt == attempt and view.state.topic_removed
    )


async def succeeded(system: System, spec: JobSpec) -> bool:
    """Whether `_SUCCESS` is there."""
    try:
        await system.store.get(Layout.of(spec).success)
    except ObjectMissing:
        return False
    return True


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_cancel_during_completion_has_one_outcome(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, seed: int
) -> None:
    dice = random.Random(seed)
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **SHORT) as system:
        for kind in ("producer", "worker", "worker"):
            system.start(kind)
        endings = set()
        for number in range(JOBS):
            spec = sampled.job(f"race-{number}")
            await system.submit(spec)
            # The table may miss the state `completing`: then the request comes after the end, as it may.
            await system.until(
                spec.job_id, lambda view: view.state.state == "completing" or not view.state.active
            )
            await asyncio.sleep(dice.uniform(0.0, 0.6))
            await system.client.request(Request(job_id=spec.job_id, action="cancel"))
            view = await ended(system, spec, 1)
            outcome = await read_outcome(system.store, Layout.of(spec), 1)
            assert outcome is not None
            assert view.state.state == outcome.ending
            assert await succeeded(system, spec) == (outcome.ending == "completed")
            assert await system.broker.describe_topic(attempt_topic(spec.job_id, 1)) is None
            endings.add(outcome.ending)
            if outcome.ending == "cancelled":
                await system.client.request(Request(job_id=spec.job_id, action="retry"))
                assert (await ended(system, spec, 2)).state.state == "completed"
            await judge_sample(system, sampled, spec)
        assert endings <= {"completed", "cancelled"}
