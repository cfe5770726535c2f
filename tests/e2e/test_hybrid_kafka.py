"""UDS3's hybrid search over all four stores → Kafka → S3, against a fusion of each store's whole list."""

import asyncio
import re
import signal
from collections import Counter, defaultdict
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from tests.databases import Database
from tests.e2e.system import Process, System, running_system
from tests.four_stores import WEIGHTS, FourStores, four_stores
from tests.make import job
from tests.services import S3
from tests.stores import Address

TOP = 700
_PARTITION = re.compile(r"/part-(\d{5})-")


def search(job_id: str, text: str, **query: Any) -> JobSpec:
    weights = {name: float(weight) for name, weight in WEIGHTS.items()}
    return job(
        job_id=job_id,
        name="hybrid",
        source={"type": "uds3", "hops": 1},
        query={"text": text, "search_types": ["vector", "graph", "keyword"], "weights": weights} | query,
        quality={"min_score": 0.0},
        output={"shard_bytes": 262_144},
    )


@pytest.mark.corpus
async def test_a_hybrid_search_equals_the_fusion_of_complete_lists(
    tmp_path: Path,
    kafka: str,
    seaweed: S3,
    database: Database,
    chroma: Address,
    emptied: Neo4jOptions,
    couch: Address,
) -> None:
    async with four_stores(tmp_path, database, chroma, emptied, couch) as (stores, settings):
        expected = await stores.fused()
        assert stores.deleted_in("c") & stores.texts.keys()
        # A killed producer's place is free when its session is over, and what it sent ends by its time-out.
        settings |= {"KAFKA_SESSION_TIMEOUT_MS": "4000", "KAFKA_TRANSACTION_TIMEOUT_MS": "3000"}
        async with running_system(tmp_path, kafka, seaweed, tmp_path, **settings) as system:
            system.start("worker")
            producer = system.start("producer")
            whole, top = search("whole", stores.text), search("top", stores.text, top_k=TOP)
            await system.submit(whole)
            await system.submit(top)
            digest = await completed(system, whole)
            await check(system, whole, stores, expected)
            await completed(system, top)
            await check(system, top, stores, dict(list(expected.items())[:TOP]))
            producer.end()
            killed = search("killed", stores.text)
            await system.submit(killed)
            await kill_producers(system, killed.job_id)
            assert await completed(system, killed) == digest
        assert await database.readers() == 0


async def completed(system: System, spec: JobSpec) -> str:
    """Wait for the end of the job, verify its dataset and return the digest."""
    view = await system.finished(spec.job_id)
    assert view.state.state == "completed", view.to_json()
    report = await system.verify(spec)
    assert report.ok, report.problems
    return report.digest


async def check(system: System, spec: JobSpec, stores: FourStores, expected: Mapping[str, Fraction]) -> None:
    """Rows, their order in each partition, scores, texts and dead letters are those expected."""
    blank = {one for one in expected if not stores.texts[one].strip()}
    kept = [one for one in expected if one not in blank]
    partitions = await rows_by_partition(system, spec)
    assert sum(map(len, partitions.values())) == len(kept)
    place = {identity: number for number, identity in enumerate(kept)}
    for rows in partitions.values():
        places = [place[row["document_id"]] for row in rows]
        assert places == sorted(set(places))
    for row in [row for rows in partitions.values() for row in rows]:
        identity = row["document_id"]
        assert row["relevance_score"] == round(float(expected[identity]), 6), identity
        assert row["text"] == stores.texts[identity]
        assert row["source"] == "uds3_search"
    manifest = await system.manifest(spec)
    assert manifest["dead_letters"] == {}
    assert manifest["source"]["deleted"].keys() == {"postgresql", "chromadb", "neo4j", "couchdb"}
    assert Counter(manifest["rejected"]) == Counter(empty=len(blank))
    notes = manifest["source"]
    assert notes["searches"] == ["vector", "graph", "keyword"]
    assert (notes["left_out"], notes["degraded"]) == ([], [])


async def rows_by_partition(system: System, spec: JobSpec) -> dict[str, list[dict[str, Any]]]:
    """The rows of each partition, in the order in which they are written."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    keys = [info.key async for info in system.store.list(Layout.of(spec).root + "data/")]
    for key in sorted(keys):
        match = _PARTITION.search(key)
        assert match, key
        body = await system.store.get(key)
        found[match[1]] += [orjson.loads(line) for line in body.splitlines()]
    return found


async def kill_producers(system: System, job_id: str) -> None:
    """Kill one producer during its search and one while it sends; start a third."""
    ranking = system.start("producer")
    await until_logged(ranking, f'"event": "graph search begins", "job": "{job_id}"')
    ranking.end(signal.SIGKILL)
    sending = system.start("producer", SHARDLINE_SOURCE_RATE="200")
    view = await system.until(job_id, lambda view: view.state.produced > 1000)
    assert view.state.active
    sending.end(signal.SIGKILL)
    system.start("producer")


async def until_logged(process: Process, text: str) -> None:
    """Return when the process has logged a text."""
    async with asyncio.timeout(90):
        while text not in process.log_text():
            await asyncio.sleep(0.02)
