"""A hybrid search over ChromaDB, Neo4j and CouchDB, from the settings to the rows of a dataset."""

import json
from pathlib import Path
from typing import Any

import pytest

from shardline.services.doctor import run_checks
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
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from tests.chroma_data import ChromaData
from tests.couch_data import CouchData
from tests.embedding_stub import embedding_service
from tests.integration.test_neo4j import fill, link
from tests.make import job
from tests.stores import Address

QUERY = "Baurecht"
IDS = [f"v{number:02d}" for number in range(20)]


@pytest.fixture
async def filled(chroma: Address, couch: Address, emptied: Neo4jOptions) -> dict[str, Any]:
    """The settings of three stores, each with some of a few documents."""
    vectors = ChromaData(chroma)
    await vectors.create()
    chunks = {
        f"{name}::chunk::{n}": (1.0, 0.01 * place + n) for place, name in enumerate(IDS) for n in (0, 1)
    }
    await vectors.add(
        chunks | {"only-here": (1.0, 0.015)},
        {"only-here": {"title": "Only here"}},
        {"only-here": "text of the vector store", "v00::chunk::0": "not this one"},
    )
    await fill(
        emptied,
        {"id": "v05", "content": "Baurecht"},
        {"id": "g1", "name": "das BAURECHT"},
        {"id": "near", "content": "x"},
        {"id": "gone", "content": "Baurecht", "deleted": True},
    )
    await link(emptied, ("g1", "CITES", "near"))
    bodies = CouchData(couch)
    texts = [{"_id": name, "content": f"Text {name}. " * 50, "title": f"T {name}"} for name in (*IDS, "near")]
    await bodies.create(*texts)
    return {
        "chroma_host": "127.0.0.1",
        "chroma_port": chroma.port,
        "chroma_collection": vectors.name,
        "neo4j_uri": emptied.uri,
        "neo4j_user": emptied.user,
        "neo4j_password": emptied.password,
        "couch_url": couch.url,
        "couch_user": couch.user,
        "couch_password": couch.password,
        "couch_database": bodies.name,
    }


def search(job_id: str, **query: Any) -> JobSpec:
    return job(
        job_id=job_id,
        name="search",
        source={"type": "uds3", "hops": 1},
        query={"text": QUERY, "search_types": ["vector", "graph"]} | query,
        quality={"min_score": 0.0},
        partitions=1,
    )


async def run(settings: Settings, spec: JobSpec, output: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run a job in this process. Returns its rows and its manifest."""
    store = DirectoryStore(output)
    source = source_factory(settings, output, confined=True, remote=None)
    embedded = EmbeddedRun(
        store, SystemClock(), Metrics(), source, ProducerPolicy(progress_seconds=0.1), 1 << 30
    )
    view = (await embedded.run(spec, lambda _: None)).view
    assert view.state.state == "completed", view.to_json()
    root = Layout.of(spec).root
    assert (await Verifier(store, root).run()).ok
    folder = output / root
    shards = sorted((folder / "data").rglob("*.jsonl"))
    rows = [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]
    return rows, json.loads((folder / "manifest.json").read_text())


async def test_a_search_over_three_stores_is_their_fusion(filled: dict[str, Any], tmp_path: Path) -> None:
    # By vector: v00, v01, only-here, v02 … By graph: g1, v05, then near, which is one edge away.
    by_vector = ["v00", "v01", "only-here", *IDS[2:]]
    by_graph = ["g1", "v05", "near"]
    ranks = [{name: rank for rank, name in enumerate(one, 1)} for one in (by_vector, by_graph)]
    weights = (0.6, 0.4)
    scores = {
        name: sum(
            weight / (60 + found[name]) for weight, found in zip(weights, ranks, strict=True) if name in found
        )
        for name in {*by_vector, *by_graph}
    }
    expected = sorted(scores, key=lambda name: (-scores[name], name))
    async with embedding_service({QUERY: (1.0, 0.0)}) as url:
        settings = Settings(**filled, embedding_url=url)
        spec = search("search", weights={"vector": 0.6, "graph": 0.4})
        rows, manifest = await run(settings, spec, tmp_path / "one")
        again, _ = await run(settings, spec, tmp_path / "two")
        few, _ = await run(settings, search("few", top_k=3), tmp_path / "three")
    assert rows == again
    assert [row["document_id"] for row in few] == expected[:3]
    # No store has a body of g1.
    assert [row["document_id"] for row in rows] == [name for name in expected if name != "g1"]
    assert manifest["dead_letters"] == {"no_content": 1}
    assert {row["document_id"]: row["relevance_score"] for row in rows} == {
        name: round(score, 6) for name, score in scores.items() if name != "g1"
    }
    texts = {row["document_id"]: row["text"] for row in rows}
    assert texts["v00"] == "Text v00. " * 50
    assert texts["only-here"] == "text of the vector store"
    assert {row["source"] for row in rows} == {"uds3_search"}
    notes = manifest["source"]
    assert (notes["searches"], notes["left_out"], notes["degraded"]) == (["vector", "graph"], [], [])
    assert notes["completeness"]["chromadb"]["level"] == "proven"
    assert notes["model"] == "all-MiniLM-L6-v2 (http)"


async def test_a_tombstone_in_any_store_applies_to_all_lists(
    filled: dict[str, Any], emptied: Neo4jOptions, chroma: Address, tmp_path: Path
) -> None:
    # v01 is a hit of ChromaDB and marked in Neo4j; near is a hit of Neo4j and marked in ChromaDB.
    await fill(emptied, {"document_id": "v01", "deleted": "yes"})
    vectors = ChromaData(chroma)
    await vectors.create()
    chunks = {f"{name}::chunk::0": (1.0, 0.01 * place) for place, name in enumerate(IDS)}
    await vectors.add(chunks | {"near::chunk::3": (0.0, 1.0)}, {"near::chunk::3": {"deleted_at": "2024"}})
    live = ["v00", *IDS[2:]]
    async with embedding_service({QUERY: (1.0, 0.0)}) as url:
        settings = Settings(**filled | {"chroma_collection": vectors.name, "embedding_url": url})
        both, manifest = await run(settings, search("both"), tmp_path)
        near, _ = await run(settings, search("near", search_types=["vector"], top_k=5), tmp_path)
        related, _ = await run(settings, search("related", search_types=["graph"]), tmp_path)
    assert sorted(row["document_id"] for row in both) == live
    assert manifest["dead_letters"] == {"no_content": 1}
    assert [row["document_id"] for row in near] == live[:5]
    assert [row["document_id"] for row in related] == ["v05"]


async def test_doctor_checks_each_store(filled: dict[str, Any]) -> None:
    async with embedding_service({"Recht": (1.0, 0.0)}) as url:
        settings = Settings(**filled, embedding_url=url, kafka_bootstrap_servers="127.0.0.1:1")
        checks = {check.name: check for check in await run_checks(settings)}
        wrong = Settings(**filled | {"couch_database": "nowhere"}, kafka_bootstrap_servers="127.0.0.1:1")
        broken = {check.name: check for check in await run_checks(wrong)}
    assert all(checks[name].ok for name in ("chromadb", "neo4j", "couchdb")), checks
    assert "41 records of dimension 2" in checks["chromadb"].found
    assert "CONTAINS" in checks["neo4j"].found
    assert (broken["chromadb"].ok, broken["couchdb"].ok) == (False, False)
    assert "set COUCH_DATABASE" in broken["couchdb"].found
    assert "EMBEDDING_URL" in broken["chromadb"].found
    assert filled["couch_password"] not in str(checks) + str(broken)


async def test_a_store_that_is_down_is_named_in_the_manifest(filled: dict[str, Any], tmp_path: Path) -> None:
    settings = Settings(**filled | {"neo4j_uri": "bolt://127.0.0.1:1"})
    spec = search("down").model_copy(update={"source": job(source={"type": "uds3", "degrade": True}).source})
    async with embedding_service({QUERY: (1.0, 0.0)}) as url:
        settings = settings.model_copy(update={"embedding_url": url})
        rows, manifest = await run(settings, spec, tmp_path)
    assert [row["document_id"] for row in rows][:4] == ["v00", "v01", "only-here", "v02"]
    assert manifest["source"]["degraded"] == ["graph"]


async def test_a_body_deleted_in_couchdb_is_not_read_from_chromadb(
    chroma: Address, couch: Address, tmp_path: Path
) -> None:
    names = ("by-id", "by-name", "lives", "nowhere-else")
    vectors, bodies = ChromaData(chroma), CouchData(couch)
    await vectors.create()
    await vectors.add(
        {name: (1.0, 0.1 * place) for place, name in enumerate(names)},
        {},
        {name: f"old {name}" for name in names},
    )
    await bodies.create(
        {"_id": "by-id", "content": "x", "deleted": True},
        {"_id": "7", "content": "x", "metadata": {"document_id": "by-name", "processing_status": "archived"}},
        {"_id": "lives", "content": "new lives"},
    )
    values = {"chroma_host": "127.0.0.1", "chroma_port": chroma.port, "chroma_collection": vectors.name}
    values |= {"couch_url": couch.url, "couch_user": couch.user, "couch_password": couch.password}
    async with embedding_service({QUERY: (1.0, 0.0)}) as url:
        settings = Settings(**values, couch_database=bodies.name, embedding_url=url)
        spec = job(
            name="removed",
            source={"type": "uds3"},
            query={"text": QUERY, "search_types": ["vector"]},
            quality={"min_score": 0.0},
            partitions=1,
        )
        rows, manifest = await run(settings, spec, tmp_path)
    assert {row["document_id"]: row["text"] for row in rows} == {
        "lives": "new lives",
        "nowhere-else": "old nowhere-else",
    }
    assert manifest["dead_letters"] == {}
    assert manifest["source"]["deleted"] == {"couchdb": 2}
    assert manifest["source"]["completeness"]["couchdb"]["level"] == "proven"
