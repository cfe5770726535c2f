"""What a preview says the rules of an assembled dataset drop, beside what the job drops."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline.services.preview import Preview, preview
from shardline.services.wiring.sources import source_factory
from shardline_common.memory.store import MemoryStore
from shardline_common.settings.load import Settings
from tests.make import job
from tests.support.embedded import run_embedded, verify

WORDS = [f"Wort{n}" for n in range(60)]
DOCUMENTS = [
    {"document_id": f"d{n % 50}", "content": " ".join(WORDS[: 40 + n % 7] + [f"Ende{n % 9}"] * (n % 4))}
    for n in range(60)
]
RULES: list[dict[str, Any]] = [
    {"quality": {"duplicate_ids": "first"}},
    {"dedup": {"exact": True}},
    {"dedup": {"exact": True, "near": {"bands": 6, "rows": 3}}},
    {"dedup": {"near": {"verify": 0.9}}, "quality": {"duplicate_ids": "first"}},
    {"sample": {"fraction": 0.5}},
    {"sample": {"rows": 7, "seed": 3}, "dedup": {"exact": True}},
    {"output": {"splits": {"train": 0.6, "validation": 0.2, "test": 0.2}}},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sample.jsonl").write_bytes(b"\n".join(map(orjson.dumps, DOCUMENTS)))
    return tmp_path


async def previewed(changes: dict[str, Any], folder: Path, documents: int = 1000) -> Preview:
    source = source_factory(Settings(), folder, confined=True, remote=None)
    return await preview(assembled(changes), source, documents=documents, seconds=60)


def assembled(changes: dict[str, Any]) -> Any:
    quality, output = (
        {"min_score": 0} | changes.get("quality", {}),
        {"shard_bytes": 1 << 20} | changes.get("output", {}),
    )
    source = {"type": "files", "paths": ["sample.jsonl"]}
    return job(**({"source": source} | changes | {"quality": quality, "output": output}))


@pytest.mark.parametrize("changes", RULES, ids=range(len(RULES)))
async def test_a_preview_of_all_documents_says_what_the_job_drops(
    folder: Path, changes: dict[str, Any]
) -> None:
    found, store, spec = await previewed(changes, folder), MemoryStore(), assembled(changes)
    await run_embedded(spec, store, folder)
    report = await verify(spec, store)
    assert report.ok, report.problems
    assert found.sample.reasons(dead=False) == report.rejected
    assert found.rows == report.rows
    manifest = orjson.loads(await store.get("test/test/manifest.json"))
    assert found.splits == {name: part["rows"] for name, part in manifest["splits"].items()}
    assert not found.drop_warnings
    assert any("come more than once" in one for one in found.warnings) == ("quality" not in changes)


def test_a_part_of_the_documents_says_what_it_cannot_show(folder: Path) -> None:
    changes = {"dedup": {"exact": True, "against": ["s3://b/older"]}, "sample": {"rows": 5}}
    found = asyncio.run(previewed(changes, folder, documents=40))
    assert found.sample.reasons(dead=False) == {"duplicate": 3}
    assert [warning.partition(":")[0].partition(";")[0] for warning in found.drop_warnings] == [
        "duplicates are counted within the sample",
        "dedup.against is not applied here",
        "sample.rows keeps 5 of all rows",
    ]
