"""What the end-to-end tests share: the corpus, its expected rows, and the digest of a run without faults."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardline.services.embedded import EmbeddedRun
from shardline.services.wiring.sources import source_factory
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.storage.directory import DirectoryStore
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerPolicy
from tests.corpus import Expectation, corpus_file, expectation
from tests.make import job
from tests.support.once import once_per_run


@dataclass(frozen=True)
class Laws:
    """The corpus, its expected rows, and the digest of an embedded run without faults."""

    folder: Path
    expected: Expectation
    digest: str

    @staticmethod
    def job(job_id: str, **changes: object) -> JobSpec:
        """The job over the corpus: every partition has a chain of many segments."""
        body = {
            "job_id": job_id,
            "name": "laws",
            "source": {"type": "files", "paths": ["laws.jsonl.zst"]},
            "output": {"shard_bytes": 262_144},
        }
        return job(**(body | changes))


async def embedded_digest(spec: JobSpec, folder: Path, output: Path) -> str:
    """Run the job in this process; the digest of its verified dataset."""
    store = DirectoryStore(output)
    source = source_factory(Settings(), folder, confined=False, remote=None)
    embedded = EmbeddedRun(
        store, SystemClock(), Metrics(), source, ProducerPolicy(progress_seconds=0.2), 1 << 30
    )
    view = (await embedded.run(spec, lambda _: None)).view
    assert view.state.state == "completed", view.to_json()
    report = await Verifier(store, Layout.of(spec).root).run()
    assert report.ok, report.problems
    return report.digest


@pytest.fixture(scope="session")
def laws(tmp_path_factory: pytest.TempPathFactory) -> Laws:
    folder = tmp_path_factory.mktemp("corpus")
    path = corpus_file(folder)

    def run() -> str:
        return asyncio.run(embedded_digest(Laws.job("laws"), folder, tmp_path_factory.mktemp("embedded")))

    return Laws(folder, expectation(path), once_per_run(tmp_path_factory, "laws-digest", run))
