"""The corpus through real Kafka and a real S3 store, and the result as other readers read it."""

import json
import os
import re
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import duckdb
import pytest

from shardline_common.job.names import Layout, attempt_topic
from tests.e2e.system import Process, System, multiset, running_system
from tests.laws import Laws
from tests.services import S3

ROOT = Path(__file__).parent.parent.parent


async def run_laws(system: System, laws: Laws, workers: list[Process]) -> None:
    spec = laws.job("laws")
    await system.submit(spec)
    for worker in workers:
        # Every worker commits segments of this job.
        await worker.until_metric("shards_written_total", "laws", 1)
    await system.hurry()
    view = await system.finished("laws")
    assert view.state.state == "completed", view.to_json()
    report = await system.verify(spec)
    assert report.ok, report.problems
    assert report.digest == laws.digest


@pytest.mark.corpus
@pytest.mark.parametrize("workers", [1, 3])
async def test_the_digest_equals_that_of_an_embedded_run(
    tmp_path: Path, kafka: str, seaweed: S3, laws: Laws, workers: int
) -> None:
    async with running_system(tmp_path, kafka, seaweed, laws.folder, SHARDLINE_SOURCE_RATE="2000") as system:
        started = [system.start("worker") for _ in range(workers)]
        for worker in started:
            await worker.until_ready()
        system.start("producer")
        await run_laws(system, laws, started)
        for worker in started:
            assert "Traceback" not in worker.log_text()
        spec = laws.job("laws")
        rows, expected = await system.rows(spec), laws.expected
        assert multiset(rows) == dict.fromkeys(expected.rows, 1)
        for row in rows:
            assert (row["text"], row["quality_score"]) == expected.rows[row["document_id"]]
        manifest = await system.manifest(spec)
        assert manifest["rejected"] == expected.rejected
        assert manifest["totals"]["documents"] == expected.documents
        assert manifest["totals"]["words"] == sum(len(text.split()) for text, _ in expected.rows.values())
        await system.until("laws", lambda view: view.state.topic_removed)
        assert await system.broker.describe_topic(attempt_topic("laws", 1)) is None
        if workers == 1:
            await readers_agree(system, laws)


def readme_block(start: str) -> str:
    """The code block of the README that starts so."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return str(next(block for block in blocks if block.startswith(start)))


async def readers_agree(system: System, laws: Laws) -> None:
    spec = laws.job("laws")
    where = f"s3://{system.s3.bucket}/{system.prefix}/{Layout.of(spec).root}".rstrip("/")
    # The README's lines, word for word, but for the place.
    code = readme_block("import json").replace("s3://bucket/laws/laws-2026", where)
    code += "print(sum(1 for _ in rows))\n"
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(system.folder / "hf")}
    env = os.environ | system.s3.env | {"AWS_ENDPOINT_URL_S3": system.s3.endpoint} | offline
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(laws.expected.rows)
    copied = system.folder / "copied"
    copied.mkdir()
    async for info in system.store.list(Layout.of(spec).root + "data/"):
        (copied / info.key.rpartition("/")[2]).write_bytes(await system.store.get(info.key))
    counted = duckdb.connect().execute(
        f"select count(*), count(distinct document_id) from read_json('{copied}/*.jsonl')"
    )
    assert counted.fetchall() == [(len(laws.expected.rows), len(laws.expected.rows))]
    for shard in copied.iterdir():
        body = shard.read_bytes().decode()
        assert len(body.splitlines()) == body.count("\n")
        assert all(json.loads(line) for line in body.splitlines())


@pytest.mark.corpus
async def test_a_job_that_rejects_all_stays_within_the_topic_limit(
    tmp_path: Path, kafka: str, seaweed: S3, laws: Laws
) -> None:
    limit = 1 << 20
    # Nothing in the corpus reaches 0.99; the sample has scores of its own and comes closer to 1.
    best = max(score for _, score in laws.expected.rows.values())
    unreached = 0.99 if best < 0.99 else 1.0
    assert best < unreached
    async with running_system(
        tmp_path, kafka, seaweed, laws.folder, SHARDLINE_TOPIC_LIMIT_BYTES=str(limit)
    ) as system:
        system.start("worker")
        system.start("producer")
        spec = laws.job(
            "none",
            quality={"min_score": unreached},
            output={"shard_bytes": 65_536},
            max_document_bytes=1_048_576,
        )
        await system.submit(spec)
        most = 0
        async with aclosing(system.client.follow(0.2)) as tables:
            async for table in tables:
                views = [view for view in table.jobs() if view.state.spec.job_id == "none"]
                if views and not views[0].state.active:
                    break
                most = max(most, await topic_bytes(system, "none"))
        view = await system.finished("none")
        assert (view.state.state, view.state.warning) == ("completed", "empty")
        report = await system.verify(spec)
        assert (report.ok, report.rows, report.shards) == (True, 0, 0)
        assert sum(report.rejected.values()) == laws.expected.documents
        # The limit is raised to what four open segments may need; it is still far below the corpus.
        assert 0 < most < 8 * (4 * 65_536 + 1_048_576)


async def topic_bytes(system: System, job_id: str) -> int:
    """Bytes of the values between the start and the end of the topic's logs."""
    name = attempt_topic(job_id, 1)
    if await system.broker.describe_topic(name) is None:
        return 0
    async with system.broker.table_reader(name) as table:
        return sum(len(record.value or b"") for record in await table.poll(timeout=1.0))
