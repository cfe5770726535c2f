"""Real documents from the fake ThemisDB: the same rows as from files, exact also after a kill."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardline.services.embedded import EmbeddedRun
from shardline.services.job_view import JobView
from shardline.services.wiring.sources import source_factory
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.storage.directory import DirectoryStore
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerPolicy
from tests.corpus import corpus_file, lines
from tests.e2e.system import running_system
from tests.faults.oracle import SHORT
from tests.make import job
from tests.services import S3
from tests.themis_reading import fill_documents
from tests.themis_server import READER, HttpCall, ThemisServer, themis_server

# Each row is a request of its own, so most tests read only the first rows.
FIRST = 3_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All documents; their ids have a tilde for the slash, which no path of ThemisDB can hold."""
    found = lines(corpus_file(tmp_path_factory.mktemp("corpus")))
    return [one | {"document_id": one["document_id"].replace("/", "~")} for one in found]


@pytest.fixture(scope="module")
def documents(corpus: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first documents."""
    return corpus[:FIRST]


@pytest.fixture
async def server(documents: list[dict[str, Any]]) -> AsyncIterator[ThemisServer]:
    async with themis_server() as found:
        found.fill("laws", "document_id", documents)
        found.index("laws", "document_type")
        yield found


async def run(spec: JobSpec, output: Path, settings: Settings, folder: Path = Path()) -> JobView:
    source = source_factory(settings, folder, confined=False, remote=None)
    store = DirectoryStore(output)
    embedded = EmbeddedRun(
        store, SystemClock(), Metrics(), source, ProducerPolicy(progress_seconds=0.2), 1 << 30
    )
    view = (await embedded.run(spec, lambda _: None)).view
    assert view.state.state == "completed", view.to_json()
    return view


def themis_job(**fields: Any) -> JobSpec:
    source = {"type": "themis", "table": "laws", "key": "document_id", "lossless": True} | fields
    return job(source=source, output={"shard_bytes": 1 << 20}, partitions=3)


def settings_for(server: ThemisServer) -> Settings:
    return Settings(themis_url=server.url, themis_token=READER, themis_rate=0)


def rows(output: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(output.rglob("data/**/*.jsonl")):
        yield from map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])


async def digest(spec: JobSpec, output: Path) -> str:
    report = await Verifier(DirectoryStore(output), Layout.of(spec).root).run()
    assert report.ok, report.problems
    return report.digest or ""


async def rows_of_files(documents: list[dict[str, Any]], folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file of the documents, by id, with `themis` as their source."""
    lines_of = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in documents)
    (folder / "laws.jsonl").write_text(lines_of, encoding="utf-8")
    files = job(source={"type": "files", "paths": ["laws.jsonl"]}, output={"shard_bytes": 1 << 20})
    await run(files, folder / "files", Settings(), folder)
    found = {row["document_id"]: row | {"source": "themis"} for row in rows(folder / "files")}
    assert len(found) > len(documents) // 4
    return found


@pytest.mark.corpus
async def test_lossless_rows_equal_those_of_files(
    server: ThemisServer, documents: list[dict[str, Any]], tmp_path: Path
) -> None:
    expected = await rows_of_files(documents, tmp_path)
    view = await run(themis_job(), tmp_path / "themis", settings_for(server))
    assert view.state.source_count == FIRST
    found = list(rows(tmp_path / "themis"))
    assert len(found) == len(expected)
    # Equal to the byte: a row read alone keeps the order of its fields, which /query sorts.
    assert all(json.dumps(row) == json.dumps(expected[row["document_id"]]) for row in found)


@pytest.mark.corpus
async def test_lossy_rows_of_the_corpus_equal_those_of_files(
    corpus: list[dict[str, Any]], tmp_path: Path
) -> None:
    # A lossy read loses lists.
    flat = [{name: value for name, value in one.items() if type(value) is not list} for one in corpus]
    expected = await rows_of_files(flat, tmp_path)
    async with themis_server() as server:
        server.fill("laws", "document_id", corpus)
        view = await run(themis_job(lossless=False), tmp_path / "themis", settings_for(server))
    assert view.state.source_count == len(corpus)
    found = list(rows(tmp_path / "themis"))
    assert len(found) == len(expected)
    assert all(row == expected[row["document_id"]] for row in found)


@pytest.mark.corpus
@pytest.mark.parametrize("requests", [400, 2_200])
async def test_killed_and_resumed_job_has_the_same_digest(
    server: ThemisServer, tmp_path: Path, requests: int
) -> None:
    spec = themis_job()
    settings = settings_for(server)
    await run(spec, tmp_path / "whole", settings)
    reached = asyncio.Event()
    counted = 0

    async def count(request: HttpCall) -> None:
        nonlocal counted
        counted += request.method == "GET"
        if counted == requests:
            reached.set()

    server.before = count
    killed = await start(spec, tmp_path, server)
    await reached.wait()
    killed.kill()
    await killed.wait()
    assert not (tmp_path / "killed").joinpath(Layout.of(spec).success).exists()
    again = await start(spec, tmp_path, server)
    assert await again.wait() == 0
    assert await digest(spec, tmp_path / "killed") == await digest(spec, tmp_path / "whole")


async def start(spec: JobSpec, folder: Path, server: ThemisServer) -> asyncio.subprocess.Process:
    (folder / "job.json").write_bytes(spec.body())
    env = os.environ | {"THEMIS_URL": server.url, "THEMIS_TOKEN": READER, "THEMIS_RATE": "0"}
    command = ("-m", "shardline", "run", "job.json", "--output", "killed")
    return await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.corpus
async def test_outage_of_the_server_is_waited_out(server: ThemisServer, tmp_path: Path) -> None:
    spec = themis_job()
    await run(spec, tmp_path / "whole", settings_for(server))
    asked = refused = 0

    async def outage(_: HttpCall) -> None:
        nonlocal asked, refused
        asked += 1
        if asked == 1_500:
            server.killed = True
        refused += server.killed
        if refused > 40:
            server.restart()

    server.before = outage
    await run(spec, tmp_path / "waited", settings_for(server))
    assert refused > 40
    assert await digest(spec, tmp_path / "waited") == await digest(spec, tmp_path / "whole")


@pytest.mark.corpus
async def test_killed_producer_on_kafka_keeps_the_digest(
    server: ThemisServer, tmp_path: Path, kafka: str, seaweed: S3
) -> None:
    spec = themis_job()
    await run(spec, tmp_path / "whole", settings_for(server))
    reached, asked = asyncio.Event(), 0

    async def count(request: HttpCall) -> None:
        nonlocal asked
        asked += request.method == "GET"
        if asked == 1_500:
            reached.set()

    server.before = count
    env = {"THEMIS_URL": server.url, "THEMIS_TOKEN": READER, "THEMIS_RATE": "0"} | SHORT
    async with running_system(tmp_path, kafka, seaweed, tmp_path, **env) as system:
        system.start("worker")
        producer = system.start("producer")
        await system.submit(spec)
        await reached.wait()
        await asyncio.to_thread(producer.end, signal.SIGKILL)
        system.start("producer")
        view = await system.finished(spec.job_id)
        assert view.state.state == "completed", view.to_json()
        report = await system.verify(spec)
        assert report.ok, report.problems
        assert report.digest == await digest(spec, tmp_path / "whole")
        assert (await system.manifest(spec))["source"]["lossless"] is True


async def test_status_names_a_server_that_limits_requests(tmp_path: Path) -> None:
    async with themis_server() as server:
        fill_documents(server, 60)
        spec = job(source={"type": "themis", "lossless": True}, quality={"min_score": 0})
        source = source_factory(settings_for(server), tmp_path, confined=False, remote=None)
        policy, views = ProducerPolicy(progress_seconds=0.1), list[JobView]()
        embedded = EmbeddedRun(
            DirectoryStore(tmp_path / "out"), SystemClock(), Metrics(), source, policy, 1 << 30
        )

        async def limit(request: HttpCall) -> None:
            if request.method == "GET" and server.bucket.per_minute is None:
                server.limit(1_200, left=10)

        server.before = limit
        view = (await embedded.run(spec, views.append)).view
    assert view.state.state == "completed", view.to_json()
    assert view.state.warning is None
    slow = [one for one in views if one.state.warning]
    assert {one.to_json()["warning"] for one in slow} == {
        f"ThemisDB at {server.url} limits requests (429 Too Many Requests)"
    }
    # The checkpoints move in small steps.
    assert len({one.state.source_count for one in slow}) > 2


@pytest.mark.corpus
async def test_filter_with_an_index(
    server: ThemisServer, documents: list[dict[str, Any]], tmp_path: Path
) -> None:
    kind = "verordnung"
    wanted = {one["document_id"] for one in documents if one.get("document_type") == kind}
    spec = job(
        source={"type": "themis", "table": "laws", "key": "document_id", "lossless": True},
        query={"filters": {"document_type": kind}},
        quality={"min_score": 0},
    )
    view = await run(spec, tmp_path / "out", settings_for(server))
    assert view.state.source_count == len(wanted)
    assert {row["document_id"] for row in rows(tmp_path / "out")} <= wanted
