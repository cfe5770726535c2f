"""Planning by two producers at once."""

import random

import pytest

from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.names import Layout
from shardline_common.job.plan import Plan
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import plan_job
from tests.make import job
from tests.simulation.simulated_source import MemorySource, documents

SPEC = job()
LAYOUT = Layout.of(SPEC)
OTHER = Plan([{"items": 3}], {"title": "string"})


class FirstGetMisses(MemoryStore):
    """A store whose first read finds nothing; then it has objects that others put meanwhile."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        super().__init__()
        self._later = keys

    async def get(self, key: str) -> bytes:
        """The object's bytes."""
        if self._later:
            for name, body in self._later.items():
                await self.create(name, body)
            self._later = {}
            raise ObjectMissing(key)
        return await super().get(key)


async def test_a_late_planner_takes_the_plan_of_a_job_that_has_begun() -> None:
    # The producer was paused between its look for a plan and its look at the folder.
    shard = LAYOUT.data("train", 0, 0)
    store = FirstGetMisses({LAYOUT.plan: OTHER.encode(), shard: b"{}\n"})
    assert await plan_job(SPEC, MemorySource(documents(3), random.Random(1)), store) == OTHER


async def test_a_folder_with_foreign_objects_is_not_planned() -> None:
    store = FirstGetMisses({LAYOUT.card: b"# Mine\n"})
    with pytest.raises(JobFailed, match=r"README\.md") as failed:
        await plan_job(SPEC, MemorySource(documents(3), random.Random(1)), store)
    assert failed.value.code is FailureCode.OUTPUT_NOT_EMPTY
