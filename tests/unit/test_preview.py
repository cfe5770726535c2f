"""`preview` estimates what `run` does, and is exact when it reads everything."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from typer.testing import CliRunner

from shardline.cli.app import app
from shardline.services.embedded import EmbeddedRun
from shardline.services.preview import Preview, preview
from shardline.services.sample import write_sample
from shardline.services.wiring.sources import source_factory
from shardline_common.errors import JobFailed
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerPolicy
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.memory_database import MemoryDatabase
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import Document
from tests.make import job
from tests.themis_server import READER, themis_server

DOCUMENTS = 1_500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample")
    write_sample(path / "in.jsonl", DOCUMENTS, broken=True)
    return path


async def preview_of(spec: JobSpec, folder: Path, documents: int = 100_000) -> Preview:
    source = source_factory(Settings(), folder, confined=True, remote=None)
    return await preview(spec, source, documents=documents, seconds=60)


async def manifest(spec: JobSpec, folder: Path) -> dict[str, Any]:
    store = MemoryStore()
    source = source_factory(Settings(), folder, confined=True, remote=None)
    embedded = EmbeddedRun(
        store, SystemClock(), Metrics(), source, ProducerPolicy(progress_seconds=0.05), 1 << 28
    )
    await embedded.run(spec, lambda _: None)
    found: dict[str, Any] = json.loads(await store.get(Layout.of(spec).manifest))
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quality": {"min_score": 0.65}},
        {"max_document_bytes": 2048, "quality": {"max_dead_letter_ratio": 1}},
    ],
)
async def test_a_whole_preview_is_what_a_run_does(folder: Path, changes: dict[str, Any]) -> None:
    spec = job(**changes)
    found, made = (await preview_of(spec, folder)).to_json(3), await manifest(spec, folder)
    assert found["exact"]
    assert found["documents"] == made["source"]["count"]
    assert found["sample"]["rejected"] == made["rejected"]
    assert found["sample"]["dead_letters"] == made["dead_letters"]
    assert found["rows"] == sum(shard["rows"] for shard in made["shards"])
    assert found["bytes"] == sum(shard["bytes"] for shard in made["shards"])
    assert len(found["first"]) == 3


async def test_a_sample_gives_an_estimate(folder: Path) -> None:
    spec = job()
    whole, part = await preview_of(spec, folder), await preview_of(spec, folder, 500)
    assert not part.sample.complete
    assert len(part.sample.documents) == 500
    assert part.sample.documents == whole.sample.documents[:500]
    for name in ("documents", "rows", "bytes"):
        assert abs(getattr(part, name) / getattr(whole, name) - 1) < 0.2, name


@pytest.mark.parametrize("pack", [zstandard.compress, gzip.compress])
@pytest.mark.parametrize("text", [b"x" * 2000, b"%d " * 400])
async def test_a_compressed_file_is_estimated_from_its_sample(
    tmp_path: Path, pack: Callable[[bytes], bytes], text: bytes
) -> None:
    def document(number: int) -> bytes:
        content = text % ((number,) * text.count(b"%d"))
        return b'{"document_id":"%d","content":"%s"}\n' % (number, content)

    name = "in.jsonl.zst" if pack is zstandard.compress else "in.jsonl.gz"
    (tmp_path / name).write_bytes(pack(b"".join(map(document, range(2000)))))
    found = await preview_of(job(source={"type": "files", "paths": [name]}), tmp_path, 500)
    assert not found.sample.complete
    assert found.documents == pytest.approx(2000, rel=0.25)


async def test_there_is_no_estimate_without_known_progress(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of a file whose last bytes are those of thousands of documents.
    monkeypatch.setattr(FileDocuments, "progress", lambda *_: 1.0)
    found = await preview_of(job(), folder, 500)
    assert (found.sample.complete, found.documents, found.rows) == (False, None, None)


@pytest.mark.parametrize("top", [100, 500])
async def test_top_k_bounds_the_estimate(folder: Path, top: int) -> None:
    found = await preview_of(job(query={"top_k": top}), folder, 500)
    assert (found.documents, found.sample.complete) == (top, True)


async def test_an_empty_file_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"")
    found = await preview_of(job(), tmp_path)
    assert (found.documents, found.rows, found.bytes, found.sample.complete) == (0, 0, 0, True)
    with pytest.raises(JobFailed, match="no file"):
        await preview_of(job(source={"type": "files", "paths": ["none-*.jsonl"]}), tmp_path)


async def test_a_search_shows_its_ranking() -> None:
    documents = {f"d{n}": Document(f"d{n}", "word " * (n + 1) * 50, {"title": "t"}) for n in range(40)}
    spec = job(source={"type": "uds3"}, query={"text": "word"})
    database = MemoryDatabase(spec, documents, {"title": "string"})
    found = await preview(
        spec, lambda spec, parts: PlannedSource(spec, database, parts), documents=10, seconds=60
    )
    assert found.documents == 40
    assert [one.document_id for one in found.sample.documents] == [f"d{n}" for n in range(39, 29, -1)]
    assert found.sample.documents[0].relevance_score == 2000.0


async def test_a_preview_shows_what_the_score_is_made_of(tmp_path: Path) -> None:
    documents = [
        {"document_id": "all", "content": "word " * 150, "title": "t", "domain": "d", "document_type": 5}
        | {"score": 0.5},
        {"document_id": "few", "content": "word", "title": "t", "domain": ""},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, documents)) + "\n{")
    found = await preview_of(job(), tmp_path)
    first, second, broken = found.sample.documents
    assert (first.score_parts, first.present) == (
        {"length": 0.3, "metadata": 0.3, "relevance": 0.15},
        ("title", "domain", "document_type"),
    )
    assert (second.score_parts, second.present) == (
        {"length": 0.1, "metadata": 0.1, "relevance": 0.0},
        ("title",),
    )
    assert (broken.score_parts, broken.present) == ({}, ())
    for one in (first, second):
        assert one.quality_score == pytest.approx(sum(one.score_parts.values()), abs=1e-4)
    sample = found.to_json(0)["sample"]
    assert sample["mean_score_parts"] == {"length": 0.2, "metadata": 0.2, "relevance": 0.075}
    assert sample["present"] == {"title": 2, "domain": 1, "document_type": 1}


def test_the_command_prints_and_writes_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    body = {"name": "p", "source": {"type": "files", "paths": ["in.jsonl"]}}
    (folder / "job.json").write_text(json.dumps(body), encoding="utf-8")
    before = sorted(folder.iterdir())
    shown = CliRunner().invoke(app, ["preview", "job.json", "--documents", "200"])
    assert shown.exit_code == 0, shown.output
    for text in (
        *("about ", "below_min_score", "invalid_json", "sample-00000000", "title: string"),
        *("= length ", "0.4 + 0.3 + ", "score fields"),
    ):
        assert text in shown.stdout
    found = CliRunner().invoke(app, ["preview", "job.json", "--json", "--show", "2"])
    assert len(json.loads(found.stdout)["first"]) == 2
    assert sorted(folder.iterdir()) == before


async def test_a_slow_source_ends_at_the_time_limit() -> None:
    async with themis_server() as server:
        server.fill("documents", "doc_id", [{"doc_id": f"d{n:04}", "content": "x"} for n in range(400)])
        settings = Settings(themis_url=server.url, themis_token=READER, themis_rate=100)
        spec = job(source={"type": "themis"})
        source = source_factory(settings, Path(), confined=True, remote=None)
        found = await preview(spec, source, documents=1000, seconds=3)
        assert not found.sample.complete
        assert 0 < len(found.sample.documents) < 100
        assert found.documents == 400
        assert found.source == {"type": "themis", "table": "documents", "lossless": True, "index": "checked"}
        assert await server.connected() == 0


async def test_a_column_that_no_document_has_is_warned_of_with_the_one_that_was_meant(folder: Path) -> None:
    spec = job(format={"metadata": ["titel", "domain"]}, output={"group_by": "documenttype"})
    found = await preview_of(spec, folder, 200)
    said = [one for one in found.warnings if "is a field that no document of the sample has" in one]
    assert [(one.split(" is ")[0], one.split("; ")[1]) for one in said] == [
        ("format.metadata: titel", "did you mean `title`?"),
        ("output.group_by: documenttype", "did you mean `document_type`?"),
    ]


async def test_a_warning_comes_once_and_names_the_score_that_leaves_no_row(tmp_path: Path) -> None:
    lines = [json.dumps({"document_id": str(number), "content": "Die Behörde prüft."}) for number in range(5)]
    (tmp_path / "a.jsonl.gz").write_text("\n".join(lines))
    found = await preview_of(job(source={"type": "files", "paths": ["a.jsonl.gz"]}), tmp_path)
    misnamed, score = found.warnings
    assert "is not compressed, other than its name says" in misnamed
    assert score.startswith("no document is kept: the highest score is 0.")
    assert "min_score" in score


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_of_a_terminal_breaks_no_reason_and_no_heading(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    job_file = folder / f"job-{columns}.json"
    source = {"type": "files", "paths": [str(folder / "in.jsonl")]}
    job_file.write_text(json.dumps({"name": "x", "source": source, "quality": {"min_score": 1.0}}))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    app(["preview", str(job_file), "--show", "20", "--documents", "50"], standalone_mode=False)
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= columns
    headings = "".join(lines[:3])
    assert all(word in headings for word in ("characters", "+ relevance", "quality"))
    assert sum(line.rstrip().endswith("  below_min_score") for line in lines) >= 3
    assert ("title" in headings) == (columns == 120)
