"""`quality.repair`: encoding damage is repaired first, and each row says whether it was."""

import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline.services.row_stream import StreamCounts, row_batches
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_producer.plan import make_plan
from shardline_producer.sources.source import Document, SourceItem
from tests.make import job
from tests.simulation.simulated_source import MemorySource
from tests.support.embedded import run_from

TEXTS = {
    "damaged": "Die GrÃ¶ÃŸe der FlÃ¤che\nist unverändert: § 5 „Haus“",
    "sound": "Die Größe der Fläche\u2028 ﬁ",
    "ascii": "plain",
    "mail": "GrÃ¶ÃŸe: max@example.org",
}


def source(**fields: Any) -> MemorySource:
    items = [
        SourceItem((0, number, number), Document(name, text, {"title": "GrÃ¶ÃŸe", **fields}), 100)
        for number, (name, text) in enumerate(TEXTS.items(), 1)
    ]
    return MemorySource(items, random.Random(1))


def repairing(**changes: Any) -> JobSpec:
    return job(quality={"min_score": 0, "repair": "ftfy"}, pii="redact", partitions=2, **changes)


async def test_a_repaired_text_is_in_the_row_with_its_own_facts(tmp_path: Path) -> None:
    spec = repairing()
    store = (await run_from(spec, lambda *_: source(), tmp_path)).store
    counts = StreamCounts()
    batches = row_batches(spec, lambda *_: source(), 9, counts)
    rows = {row["document_id"]: row async for batch in batches for row in map(orjson.loads, batch)}
    assert {name: (row["text"], row["metadata"]["text_repaired"]) for name, row in rows.items()} == {
        "damaged": ("Die Größe der Fläche\nist unverändert: § 5 „Haus“", True),
        "sound": (TEXTS["sound"], False),
        "ascii": ("plain", False),
        "mail": ("Größe: [EMAIL_1]", True),
    }
    # Only the text is repaired.
    assert rows["damaged"]["metadata"]["title"] == "GrÃ¶ÃŸe"
    keys = [info.key async for info in store.list(Layout.of(spec).root + "data/")]
    lines = [line for key in keys for line in (await store.get(key)).split(b"\n") if line]
    assert {orjson.loads(line)["document_id"]: orjson.loads(line) for line in lines} == rows
    manifest = orjson.loads(await store.get(Layout.of(spec).manifest))
    assert [(one["name"], one["libraries"]) for one in manifest["filters"]] == [
        ("repair", {"ftfy": version("ftfy")}),
        ("pii", {}),
    ]
    assert manifest["schema"]["columns"]["text_repaired"] == "bool"
    assert manifest["totals"]["words"] == sum(len(row["text"].split()) for row in rows.values())


async def test_a_field_of_the_name_of_the_column_fails_the_job_at_planning() -> None:
    with pytest.raises(JobFailed, match="have a field text_repaired") as error:
        await make_plan(repairing(), source(text_repaired=True))
    assert error.value.code is FailureCode.SOURCE_INVALID
