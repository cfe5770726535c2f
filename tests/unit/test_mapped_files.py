"""Whole jobs over files whose fields have other names, and the names of files in ids."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from shardline.services.local_run import run_warnings
from shardline.services.preview import preview
from shardline.services.wiring.sources import source_factory
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.settings.load import Settings
from shardline_producer.sources.files.line_names import line_names
from tests.make import job
from tests.support.embedded import run_embedded


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"in/laws.jsonl": "in/laws.jsonl"}, ["laws.jsonl"]),
        (
            {"in/2024/a.jsonl": "in/*/a.jsonl", "in/2025/a.jsonl": "in/*/a.jsonl"},
            ["2024/a.jsonl", "2025/a.jsonl"],
        ),
        ({"in/x/a.md": "in", "in/b.md": "in"}, ["x/a.md", "b.md"]),
        ({"in/x/a.md": "in/"}, ["x/a.md"]),
        ({"in/x/a.md": "./in/**/*.md"}, ["x/a.md"]),
        ({"/data/in/a.md": "/data//in/*.md"}, ["a.md"]),
        ({"../in/a.md": "../in/*.md"}, ["a.md"]),
        ({"in/a.md": "x/../in/*.md"}, ["a.md"]),
        ({"s3://b/in/x/a.md": "s3://b/in/*/*.md"}, ["x/a.md"]),
        ({"s3://b/a.md": "s3://b/a.md"}, ["a.md"]),
        ({"d[1]/a.md": "d[1]/*.md", "d[1].md": "d[1].md"}, ["a.md", "d[1].md"]),
        # Names that would be the same take further folders, until they differ.
        ({"in/2024/a.md": "in/2024/a.md", "in/2025/a.md": "in/2025/a.md"}, ["2024/a.md", "2025/a.md"]),
        ({"x/in/a.md": "x/in/*.md", "y/in/a.md": "y/in/*.md"}, ["x/in/a.md", "y/in/a.md"]),
        ({"x/a.md": "x/a.md", "a.md": "a.md", "b.md": "b.md"}, ["x/a.md", "a.md", "b.md"]),
        ({"s3://b/in/a.md": "s3://b/in/*", "in/a.md": "in/*"}, ["b/in/a.md", "in/a.md"]),
        ({"y/a.md": "y/a.md", "x/a.md": "*/a.md"}, ["a.md", "x/a.md"]),
        ({"/x/a.md": "/x/a.md", "x/a.md": "x/a.md"}, ["/x/a.md", "x/a.md"]),
    ],
)
def test_the_name_of_a_file_is_its_path_below_what_the_job_names(
    files: dict[str, str], names: list[str]
) -> None:
    assert line_names(files) == names


async def rows_of(spec: JobSpec, folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a completed job by their id."""
    store = MemoryStore()
    view = await run_embedded(spec, store, folder)
    assert view.state.state == "completed", view.to_json()
    found: dict[str, dict[str, Any]] = {}
    async for info in store.list(Layout.of(spec).root + "data/"):
        for line in (await store.get(info.key)).splitlines():
            row = json.loads(line)
            found[row["document_id"]] = row
    return found


def write(path: Path, *values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


async def test_a_job_reads_nested_fields_and_lifts_others_into_columns(tmp_path: Path) -> None:
    write(
        tmp_path / "in.jsonl",
        *(
            {"uid": n, "title": f"T{n}", "body": {"text": f"wort {n}"}, "meta": {"author": "Huber", "n": n}}
            for n in range(3)
        ),
    )
    fields = {"id": "uid", "text": "{{title}}\n\n{{/body/text}}"}
    spec = job(
        source={"type": "files", "paths": ["in.jsonl"], "fields": fields, "flatten": ["/meta/author"]},
        quality={"min_score": 0},
    )
    rows = await rows_of(spec, tmp_path)
    assert sorted(rows) == ["0", "1", "2"]
    assert rows["1"]["text"] == "T1\n\nwort 1"
    assert rows["1"]["metadata"] == {
        "title": "T1",
        "author": "Huber",
        "extra": '{"body":{"text":"wort 1"},"meta":{"n":1}}',
    }


async def test_a_parquet_file_is_mapped_like_lines(tmp_path: Path) -> None:
    values = [
        {"title": "T", "body": {"text": f"wort {n}"}, "meta": {"author": "Huber", "n": n}} for n in range(3)
    ]
    parquet.write_table(pa.Table.from_pylist(values), tmp_path / "in.parquet")
    write(tmp_path / "in.jsonl", *values)
    found = []
    for name in ("in.parquet", "in.jsonl"):
        fields = {"id": "line", "text": "{{title}} {{/body/text}}"}
        source = {"type": "files", "paths": [name], "fields": fields, "flatten": ["/meta/author"]}
        rows = await rows_of(job(source=source, quality={"min_score": 0}), tmp_path)
        assert sorted(rows) == [f"{name}:{number}" for number in (1, 2, 3)]
        assert rows[f"{name}:1"]["metadata"]["author"] == "Huber"
        found.append([(one["text"], one["metadata"]) for _, one in sorted(rows.items())])
    assert found[0] == found[1]


async def test_ids_of_lines_do_not_depend_on_where_the_files_are(tmp_path: Path) -> None:
    for number in (1, 2):
        for year in ("2024", "2025"):
            write(
                tmp_path / str(number) / "in" / year / "laws.jsonl",
                {"body": f"{year} a"},
                {"body": f"{year} b"},
            )
    source = {"type": "files", "fields": {"id": "line", "text": "body"}}
    relative = job(source={**source, "paths": ["in/*/*.jsonl"]}, quality={"min_score": 0})
    rows = await rows_of(relative, tmp_path / "1")
    assert {key: row["text"] for key, row in rows.items()} == {
        "2024/laws.jsonl:1": "2024 a",
        "2024/laws.jsonl:2": "2024 b",
        "2025/laws.jsonl:1": "2025 a",
        "2025/laws.jsonl:2": "2025 b",
    }
    paths = [str(tmp_path / "2" / "in" / year / "laws.jsonl") for year in ("2024", "2025")]
    absolute = job(source={**source, "paths": paths}, quality={"min_score": 0})
    assert await rows_of(absolute, tmp_path / "2") == rows


async def test_a_number_and_a_text_as_ids_are_two_documents_and_counted(tmp_path: Path) -> None:
    ids = [12, "12", 7, "8", 8, "8", 12]
    write(tmp_path / "in.jsonl", *({"document_id": one, "content": f"wort {n}"} for n, one in enumerate(ids)))
    spec = job(quality={"min_score": 0})
    store = MemoryStore()
    state = (await run_embedded(spec, store, tmp_path)).state
    manifest = json.loads(await store.get(Layout.of(spec).manifest))
    assert (manifest["totals"]["rows"], manifest["source"]["mixed_ids"]) == (len(ids), 2)
    said = "2 ids of the first documents came both as a number and as text; each document is a row of its own"
    assert said in run_warnings(state)
    assert said in (await store.get(Layout.of(spec).card)).decode()
    open_source = source_factory(Settings(), tmp_path, confined=True, remote=None)
    shown = await preview(spec, open_source, documents=100, seconds=60)
    assert said in shown.warnings
    assert shown.to_json(0)["source"]["mixed_ids"] == 2
    report = await Verifier(store, Layout.of(spec).root).run()
    assert (report.ok, report.rows) == (True, len(ids))


async def test_ids_of_one_kind_are_not_counted(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *({"document_id": one, "content": "wort"} for one in (1, 1, "a", "a", "2")))
    spec = job(quality={"min_score": 0})
    store = MemoryStore()
    await run_embedded(spec, store, tmp_path)
    assert "mixed_ids" not in json.loads(await store.get(Layout.of(spec).manifest))["source"]
