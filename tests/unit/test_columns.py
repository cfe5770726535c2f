"""Columns whose names every reader can tell apart, not more of them than the job allows, and blank texts."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from shardline.cli.app import app
from shardline_common.job.blank import INVISIBLE, UNICODE, is_blank
from shardline_common.job.columns import Columns, conform, distinct, infer
from shardline_common.job.plan import Plan
from shardline_common.memory.store import MemoryStore
from shardline_producer.rows import RowRenderer
from shardline_producer.sources.source import Document
from tests.make import job
from tests.support.embedded import run_embedded, verify

NAMES = st.text(st.sampled_from("aAbB_2xX\0\x1fß"), min_size=1, max_size=4) | st.sampled_from(
    ["extra", "Extra", "EXTRA"]
)


def documents(*metadata: dict[str, Any]) -> list[Document]:
    return [Document(str(number), "text", one) for number, one in enumerate(metadata)]


def test_fields_that_differ_only_by_case_get_names_that_differ() -> None:
    columns = distinct(infer(documents({"Title": "A", "title": "b", "TITLE": 1, "Extra": "e", "a\0b": "c"})))
    assert columns.types == {
        "Title": "string",
        "title_2": "string",
        "TITLE_3": "int",
        "Extra_2": "string",
        "a_b": "string",
    }
    row = conform({"title": "b", "Title": "A", "Extra": "e", "a\0b": "c", "title_2": "late"}, columns)
    assert row == {
        "Title": "A",
        "title_2": "b",
        "TITLE_3": None,
        "Extra_2": "e",
        "a_b": "c",
        "extra": '{"title_2":"late"}',
    }


@given(
    st.lists(st.dictionaries(NAMES, st.integers(0, 9), max_size=6), max_size=5),
    st.dictionaries(NAMES, st.integers(0, 9)),
)
def test_no_value_is_lost_under_names_that_differ(sample: list[dict[str, int]], late: dict[str, int]) -> None:
    columns = distinct(infer(documents(*sample)))
    folded = [name.casefold() for name in (*columns.types, "extra")]
    assert len(set(folded)) == len(folded)
    assert not any(char < " " for name in columns.types for char in name)
    for metadata in (*sample, late):
        row = conform(metadata, columns)
        extra = json.loads(row["extra"] or "{}")
        source = {column: name for name, column in columns.renamed.items()}
        found = {
            source.get(name, name): value
            for name, value in row.items()
            if name != "extra" and value is not None
        }
        assert found | extra == metadata
        assert not found.keys() & extra.keys()


def test_too_many_fields_leave_the_frequent_ones() -> None:
    rows = [{"title": "t", f"user_{number}": number} for number in range(1_000)]
    for number in range(20):
        rows[number]["rare"] = number
    columns = infer(documents(*rows), 256)
    assert columns.types == {"title": "string", "rare": "int"}
    assert columns.without_column == 1_000
    assert infer(documents(*rows), 1).types == {"title": "string"}
    assert len(infer(documents(*rows)).types) == 1_002
    few = [{f"c{number}": 1 for number in range(256)}]
    assert len(infer(documents(*few), 256).types) == 256


def test_the_table_of_invisible_characters_is_that_of_its_version() -> None:
    def invisible(code: int) -> bool:
        category = unicodedata.category(chr(code))
        return category[0] == "Z" or category in ("Cc", "Cf")

    ours = {code for first, last in INVISIBLE for code in range(first, last + 1)}
    # Another version of Python has another table; characters are only added to these categories.
    running = {code for code in range(0x110000) if invisible(code)}
    assert running == ours if unicodedata.unidata_version == UNICODE else running <= ours or ours <= running


@pytest.mark.parametrize(
    ("text", "blank"),
    [
        ("", True),
        (" \n\t\u00a0\u2028", True),
        ("\u200b" * 600, True),
        ("\ufeff\u00ad\u2060\U000e0041", True),
        ("\u200bWort\u200b", False),
        ("·", False),
    ],
)
def test_a_text_without_a_visible_character_is_blank(text: str, *, blank: bool) -> None:
    assert is_blank(text) == blank
    renderer = RowRenderer(job(), Columns({}))
    assert renderer.render(Document("a", text, {})).facts.blank == blank
    # A job that version 0.1 planned keeps its rows.
    old = RowRenderer(job(), Columns({}), rules=1)
    assert old.render(Document("a", text, {})).facts.blank == (not text.split())


def test_a_plan_of_version_0_1_keeps_its_rules() -> None:
    plan = Plan.decode(b'{"frozen": [], "columns": {"a": "int"}, "notes": {}}')
    assert (plan.rules, plan.row_columns) == (1, Columns({"a": "int"}))


async def test_a_dataset_with_such_fields_is_proven_and_read(tmp_path: Path) -> None:
    row = {"content": "wort " * 100, "Title": "A", "title": "b", "n\0": 1}
    lines = [
        json.dumps({"document_id": f"d{number}", f"user_{number}": number, **row}) for number in range(400)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    spec, store = (
        job(source={"type": "files", "paths": ["in.jsonl"]}, quality={"min_score": 0}),
        MemoryStore(),
    )
    view = await run_embedded(spec, store, tmp_path)
    assert view.state.state == "completed", view.to_json()
    report = await verify(spec, store)
    assert report.ok, report.problems
    manifest = json.loads(await store.get("test/test/manifest.json"))
    assert manifest["rules"] == 2
    assert list(manifest["schema"]["columns"]) == ["Title", "title_2", "n_"]
    assert manifest["schema"]["renamed"] == {"title": "title_2", "n\0": "n_"}
    assert manifest["schema"]["fields_without_column"] == 400
    for info in [info async for info in store.list("test/test/data/")]:
        (tmp_path / info.key.rpartition("/")[2]).write_bytes(await store.get(info.key))
    shards = f"read_json('{tmp_path}/part-*.jsonl')"
    query = f"SELECT count(*), min(metadata.title_2), max(metadata.Title) FROM {shards}"
    assert duckdb.connect().execute(query).fetchall() == [(400, "b", "A")]


def test_preview_warns_of_fields_without_a_column_and_of_ids_that_come_twice(tmp_path: Path) -> None:
    row = {"content": "wort " * 100, "Title": "A", "title": "b"}
    lines = [
        json.dumps({"document_id": f"d{number // 2}", f"user_{number}": number, **row})
        for number in range(400)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    (tmp_path / "job.json").write_text(
        json.dumps({"name": "a", "source": {"type": "files", "paths": [str(tmp_path / "in.jsonl")]}})
    )
    found = CliRunner().invoke(app, ["preview", str(tmp_path / "job.json"), "--json"])
    shown = json.loads(found.stdout)
    assert (shown["fields_without_column"], shown["renamed"]) == (400, {"title": "title_2"})
    assert shown["sample"]["repeated_ids"] == 200
    printed = " ".join(CliRunner().invoke(app, ["preview", str(tmp_path / "job.json")]).stdout.split())
    assert "400 fields have no column" in printed
    assert "'title' is 'title_2'" in printed
    assert "200 ids of the sample come more than once" in printed
