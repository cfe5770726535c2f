"""The oracle: what holds for a dataset after any faults during its job."""

import json
from collections import Counter

from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from tests.e2e.system import System, multiset
from tests.sampled import Sampled

SHORT = {
    "KAFKA_SESSION_TIMEOUT_MS": "2000",
    "KAFKA_TRANSACTION_TIMEOUT_MS": "3000",
    "KAFKA_REQUEST_TIMEOUT_MS": "5000",
}
"""Time-outs scaled down, so that an outage of minutes takes seconds."""


async def judge_sample(system: System, sampled: Sampled, spec: JobSpec) -> None:
    """Check ids of rows and rejections against the source, the chains, and the undisturbed digest."""
    report = await system.verify(spec)
    assert report.ok, report.problems
    assert not report.dead_letters
    assert multiset(await system.rows(spec)) + await rejected_ids(system, spec) == sampled.ids
    assert report.digest == sampled.digest


async def rejected_ids(system: System, spec: JobSpec) -> Counter[str]:
    """Ids of the rejected documents that were kept."""
    found: Counter[str] = Counter()
    async for info in system.store.list(Layout.of(spec).root + "rejected/"):
        for line in (await system.store.get(info.key)).splitlines():
            found[json.loads(line)["document_id"]] += 1
    return found
