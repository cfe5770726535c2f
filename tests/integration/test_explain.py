"""`explain` says of every document where it is, or why it is not there."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

import shardline
from shardline.cli.app import app
from shardline.services.explain import explain_document
from shardline_common.assembly.find_record import FoundRecord
from shardline_common.errors import JobFailed
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.settings.load import Settings
from shardline_common.storage.directory import DirectoryStore
from tests.make import job
from tests.support.embedded import run_embedded

WORDS = "Das Gericht hat die Klage des Nachbarn gegen den Bau der Halle im Aussenbereich"
DOCUMENTS = [
    {
        "document_id": f'd"ä{n % 36}',
        "content": f"{WORDS} abgewiesen, im Verfahren {n % 16}"
        if n % 4 == 0
        else f"Nummer {n} " + "x " * (n % 60) * 20,
        "court": f"court {n % 12}",
    }
    for n in range(40)
]
JOBS: dict[str, dict[str, Any]] = {
    "seeded": {
        "partitions": 3,
        "quality": {"duplicate_ids": "first", "min_score": 0.15},
        "dedup": {"exact": True, "near": True},
        "sample": {"rows": 15},
        "output": {
            "splits": {"train": 0.5, "validation": 0.5},
            "shards": {"count": 2, "equal": True},
            "compression": "zstd",
        },
    },
    "source": {"slices": 2, "dedup": {"exact": True}, "output": {"order": "source", "shards": {"count": 2}}},
    "stream": {"partitions": 2, "quality": {"min_score": 0.25, "keep_rejected": True}},
}


async def made(folder: Path, changes: dict[str, Any]) -> tuple[JobSpec, Path]:
    (folder / "sample.jsonl").write_bytes(b"\n".join(map(orjson.dumps, DOCUMENTS)))
    quality = {"min_score": 0} | changes.get("quality", {})
    output = {"shard_bytes": 4096} | changes.get("output", {})
    source = {"type": "files", "paths": ["sample.jsonl"]}
    spec = job(**(changes | {"source": source, "quality": quality, "output": output}))
    view = await run_embedded(spec, DirectoryStore(folder / "out"), folder)
    assert view.state.state == "completed", view.state.message
    return spec, folder / "out" / Layout.of(spec).root


@pytest.fixture(scope="module", params=JOBS)
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dataset."""
    return asyncio.run(made(tmp_path_factory.mktemp("explain"), JOBS[request.param]))[1]


def row_at(dataset: Path, key: str, line: int) -> dict[str, Any]:
    body = (dataset / key).read_bytes()
    if key.endswith(".zst"):
        import zstandard

        body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
    row: dict[str, Any] = orjson.loads(body.splitlines()[line - 1])
    return row


async def test_every_document_is_where_explain_says(dataset: Path, tmp_path: Path) -> None:
    settings, counts = Settings(spool_dir=tmp_path), Counter[str]()
    places = set[tuple[str, int]]()
    texts: dict[str, set[str]] = {}
    for one in DOCUMENTS:
        texts.setdefault(one["document_id"], set()).add(" ".join(one["content"].split()))
    for document_id, written in texts.items():
        found = await explain_document(str(dataset), document_id, settings)
        assert len(found.records) == sum(one["document_id"] == document_id for one in DOCUMENTS)
        for record in found.records:
            counts[record.reason or "row"] += 1
            check(dataset, record, texts, written)
            if record.shard is not None:
                places.add((record.shard, record.line or 0))
    manifest = orjson.loads((dataset / "manifest.json").read_bytes())
    assert counts == {"row": manifest["totals"]["rows"], **manifest["rejected"]}
    assert len(places) == counts["row"]
    nothing = await explain_document(str(dataset), "no such document", settings)
    assert nothing.records == ()


def check(dataset: Path, record: FoundRecord, texts: dict[str, set[str]], written: set[str]) -> None:
    if record.shard is not None:
        row = row_at(dataset, record.shard, record.line or 0)
        assert row["document_id"] == record.document_id
    if record.reason == "duplicate":
        assert record.instead is not None
        assert texts[record.instead.document_id] & written
    if record.reason in ("duplicate_id", "near_duplicate"):
        assert record.instead is not None
    if record.reason == "below_min_score" and "assembly" in (dataset / "manifest.json").read_text():
        assert record.value is not None
        assert record.threshold is not None
        assert record.value < record.threshold


def test_command_and_api_say_the_same(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset)
    for document_id in ('d"ä0', 'd"ä7', "nothing"):
        called = shardline.sync.explain(dataset, document_id)
        said = CliRunner().invoke(app, ["explain", str(dataset), document_id, "--json"])
        printed = orjson.loads(said.stdout)
        assert [(one["outcome"], one["shard"], one["line"], one["reason"]) for one in printed["records"]] == [
            (one.outcome, one.shard, one.line, one.reason) for one in called.records
        ]
        text = CliRunner().invoke(app, ["explain", str(dataset), document_id])
        assert text.exit_code == 0
        assert document_id in text.stdout
    assert "no record of it" in text.stdout


async def test_a_text_of_another_dataset_is_explained_by_its_address(tmp_path: Path) -> None:
    (tmp_path / "older.jsonl").write_bytes(orjson.dumps(DOCUMENTS[5] | {"document_id": "old"}))
    source = {"type": "files", "paths": ["older.jsonl"]}
    older = job(job_id="older", source=source, quality={"min_score": 0})
    await run_embedded(older, DirectoryStore(tmp_path / "older"), tmp_path)
    address = str(tmp_path / "older" / Layout.of(older).root)
    _, folder = await made(tmp_path, {"dedup": {"against": [address]}, "output": {"shards": {"count": 2}}})
    found = await explain_document(str(folder), DOCUMENTS[5]["document_id"], Settings(spool_dir=tmp_path))
    dropped = [one for one in found.records if one.outcome == "rejected"]
    assert [(one.reason, one.dataset, one.instead, one.shard) for one in dropped] == [
        ("duplicate_of_dataset", address, None, None)
    ]
    command = ["explain", str(folder), DOCUMENTS[5]["document_id"]]
    said = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert f"rejected: duplicate_of_dataset {address}" in said.stdout.replace("\n", "")


async def test_objects_of_another_store_are_copied_and_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = await made(tmp_path, JOBS["source"])

    @asynccontextmanager
    async def opened(_uri: str, _settings: Settings) -> AsyncIterator[DirectoryStore]:
        yield DirectoryStore(folder)

    monkeypatch.setattr("shardline.services.explain.open_store_at", opened)
    monkeypatch.setattr("shardline.services.finished.open_store_at", opened)
    settings = Settings(spool_dir=tmp_path)
    here = await explain_document(str(folder), DOCUMENTS[0]["document_id"], settings)
    there = await explain_document("s3://bucket/x", DOCUMENTS[0]["document_id"], settings)
    assert (here, len(here.records)) == (there, 2)
    for path in (folder / "_state/records").iterdir():
        path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(JobFailed, match="is not the one that manifest"):
        await explain_document("s3://bucket/x", DOCUMENTS[0]["document_id"], settings)
