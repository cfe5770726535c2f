"""The gateway as installed: real PostgreSQL, Kafka and S3, and each of Shardline's processes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import requests

from deploy.dev.postgres import PASSWORD, USER
from deploy.dev.service import HOST
from shardline.services.sample import sample_document
from tests.databases import Database, local_postgres
from tests.e2e.system import running_system
from tests.gateway.system import SECONDS, Server, body, ended, eventually, running
from tests.services import S3
from tests.uds3_data import make_uds3

COMMAND = ("-m", "shardline", "gateway")
SEARCH = {"search_types": ["relational"], "min_quality_score": 0.3}


async def filled(database: Database, count: int) -> None:
    """Create UDS3's tables with documents of the sample."""
    await make_uds3(database)
    documents = [sample_document(number) for number in range(count)]
    rows = [(one["document_id"], one["content"], one.get("domain")) for one in documents]
    await database.load("documents", ("document_id", "content", "classification"), rows)
    named = [(one["document_id"], one.get("title"), one.get("document_type")) for one in documents]
    await database.load("documents_metadata", ("document_id", "title", "document_type"), named)


def until_searched(server: Server) -> None:
    """Wait until the gateway reaches the database: a slow first probe is cached for some seconds."""
    eventually(lambda: bool(server.health()["uds3_available"]))


def by_id(row: dict[str, Any]) -> str:
    return str(row["document_id"])


def streamed(server: Server, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a stream, after a search without a configured store was refused."""
    url = f"{server.url}/api/datasets/stream"
    # Clara's clients request the searches vector and graph by default.
    refused = requests.post(url, json=body("Baugenehmigung"), timeout=SECONDS)
    assert refused.status_code == 503
    assert "searches here: keyword" in refused.json()["detail"]
    response = requests.post(url, json=asked, stream=True, timeout=SECONDS)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.iter_lines()]


def exported(server: Server, dataset_id: str) -> list[dict[str, Any]]:
    """Export a dataset and return its rows."""
    url = f"{server.url}/api/datasets/{dataset_id}/export"
    export = requests.post(url, json={"format": "jsonl"}, timeout=SECONDS).json()
    assert export["export_path"].startswith("s3://")
    whole = requests.get(server.url + export["download_url"], timeout=SECONDS).text
    return [json.loads(line) for line in whole.splitlines()]


async def test_streams_and_datasets_on_real_services(
    tmp_path: Path, kafka: str, seaweed: S3, database: Database
) -> None:
    await filled(database, 3000)
    async with running_system(tmp_path, kafka, seaweed, tmp_path, **database.env) as system:
        for kind in ("producer", "worker"):
            await system.start(kind).until_ready()
        with running(
            tmp_path / "gateway", *COMMAND, **(system.env() | {"CLARA_SECURITY_MODE": "debug"})
        ) as server:
            until_searched(server)
            asked = body("Baugenehmigung", name="Große Prüfung", top_k=100_000, **SEARCH)
            rows = streamed(server, asked)
            found = await database.fetch(
                "SELECT document_id FROM documents"
                " WHERE search_vector @@ plainto_tsquery('german', 'Baugenehmigung')"
            )
            assert 100 < len(rows) <= len(found)
            assert {row["document_id"] for row in rows} <= {row["document_id"] for row in found}
            assert all("augenehmigung" in row["text"] for row in rows)
            eventually(lambda: bool(server.health()["jobs_available"]))
            made = requests.post(f"{server.url}/api/datasets", json=asked, timeout=SECONDS)
            assert made.status_code == 200, made.text
            dataset_id = made.json()["dataset_id"]
            data = ended(server.url, dataset_id)
            assert data["status"] == "completed", data
            assert data["document_count"] == len(rows)
            # Through Kafka, the header of the message, and the record in the bucket.
            assert data["created_at"] == made.json()["data"]["created_at"]
            assert data["owner"] == "debug-user"
            assert sorted(exported(server, dataset_id), key=by_id) == sorted(rows, key=by_id)
            # No connection stays open; PostgreSQL notices a closed connection with a delay.
            async with asyncio.timeout(SECONDS):
                while await database.readers():
                    await asyncio.sleep(0.05)


async def test_a_killed_database_breaks_the_body_of_a_stream(tmp_path: Path) -> None:
    with local_postgres(tmp_path / "postgres") as postgres:
        database = Database(HOST, postgres.ports["sql"], USER, PASSWORD)
        await filled(database, 30_000)
        env = database.env | {"CLARA_SECURITY_MODE": "debug", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
        with running(tmp_path / "gateway", *COMMAND, **env) as server:
            until_searched(server)
            asked = body("Behörde Bauherr Gemeinde", top_k=100_000, **SEARCH) | {"name": "Abbruch"}
            asked["search_query"]["query_text"] = "Anlage"
            response = requests.post(
                f"{server.url}/api/datasets/stream", json=asked, stream=True, timeout=SECONDS
            )
            assert response.status_code == 200, response.text
            lines = response.iter_lines(chunk_size=512)
            assert json.loads(next(lines))["document_id"]
            postgres.stop(kill=True)
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                for _ in lines:
                    pass
            server.until_logged("the stream was aborted")
            # Without Kafka and without its database the gateway still answers, and reports both.
            health = server.health()
            assert health["status"] == "healthy"
            assert not health["jobs_available"]
            assert requests.get(f"{server.url}/api/datasets", timeout=SECONDS).status_code == 503
