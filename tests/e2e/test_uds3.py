"""PostgreSQL → Kafka → S3 with real processes: producers killed, rows changed meanwhile, the same dataset."""

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from shardline.services.job_view import JobView
from shardline_common.job.names import Layout
from tests.databases import Database
from tests.e2e.system import multiset, running_system
from tests.faults.oracle import SHORT
from tests.make import job
from tests.services import S3
from tests.uds3_data import load_corpus

DOCUMENTS = 12_000


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"document_id": f"d{n:06d}", "content": f"Satz {n} " * 150, "title": f"T{n}"} for n in range(count)
    ]


async def test_killed_producers_leave_the_dataset_of_an_embedded_run(
    tmp_path: Path, kafka: str, seaweed: S3, database: Database
) -> None:
    await load_corpus(database, rows(DOCUMENTS))
    spec = job(
        job_id="uds3",
        name="uds3",
        source={"type": "uds3"},
        output={"shard_bytes": 262_144},
        quality={"min_score": 0.3},
    )
    path = tmp_path / "job.json"
    path.write_bytes(orjson.dumps(spec.model_dump(mode="json")))
    expected = await asyncio.to_thread(embedded_digest, path, tmp_path / "out", database)
    slow = database.env | SHORT | {"SHARDLINE_SOURCE_RATE": "500"}
    async with running_system(tmp_path, kafka, seaweed, tmp_path, **slow) as system:
        system.start("worker")
        await system.submit(spec)
        produced = 0
        for _ in range(2):
            producer = system.start("producer")
            view = await system.until("uds3", partial(ahead_of, produced + 1500))
            produced = view.state.produced
            assert view.state.active
            producer.end(signal.SIGKILL)
        system.start("producer", SHARDLINE_SOURCE_RATE="0")
        view = await system.finished("uds3")
        assert view.state.state == "completed", view.to_json()
        report = await system.verify(spec)
        assert report.ok, report.problems
        assert report.digest == expected
        assert multiset(await system.rows(spec)) == {f"d{n:06d}": 1 for n in range(DOCUMENTS)}
        parts = [info.key async for info in system.store.list(Layout.of(spec).plan_pages)]
        assert len(parts) == len(set(parts)) > 3
    assert await database.readers() == 0


def ahead_of(least: int, view: JobView) -> bool:
    """Whether so many documents are sent."""
    return view.state.produced > least


def embedded_digest(path: Path, output: Path, database: Database) -> str:
    """The digest of `shardline run`, as `verify` proves it."""
    shardline = [sys.executable, "-m", "shardline"]
    env = os.environ | database.env
    run = [*shardline, "run", str(path), "--output", str(output), "--json"]
    done = subprocess.run(run, capture_output=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    view = orjson.loads(done.stdout)
    assert view["source"].pop("completeness")["postgresql"]["level"] == "proven"
    assert view["source"] == {"type": "uds3"}
    verify = [*shardline, "verify", view["dataset"], "--json"]
    proof = subprocess.run(verify, capture_output=True, check=True, env=env)
    return str(orjson.loads(proof.stdout)["digest"])
