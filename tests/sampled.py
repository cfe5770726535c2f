"""A small sample that the fault tests share, and the digest of a run without faults."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardline.services.sample import write_sample
from shardline_common.job.spec import JobSpec
from tests.laws import embedded_digest
from tests.make import job, sample_job
from tests.support.once import once_per_run

DOCUMENTS = 4_000


@dataclass(frozen=True)
class Sampled:
    """The sample, its ids, and the digest of an embedded run without faults."""

    folder: Path
    ids: Counter[str]
    digest: str

    @staticmethod
    def job(job_id: str, **changes: object) -> JobSpec:
        """The job over the sample. It keeps rejected documents, so that all ids can be counted."""
        return job(**sample_job(job_id, **({"quality": {"keep_rejected": True}} | changes)))


@pytest.fixture(scope="session")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Sampled:
    folder = tmp_path_factory.mktemp("sample")
    path = folder / "sample.jsonl"
    write_sample(path, DOCUMENTS)
    with path.open(encoding="utf-8") as lines:
        ids = Counter(json.loads(line)["document_id"] for line in lines)

    def run() -> str:
        return asyncio.run(embedded_digest(Sampled.job("sample"), folder, tmp_path_factory.mktemp("run")))

    return Sampled(folder, ids, once_per_run(tmp_path_factory, "sample-digest", run))
