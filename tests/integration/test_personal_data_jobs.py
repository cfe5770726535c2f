"""`pii` of a job: nothing of it holds a value that was to be replaced, and every replacement is counted."""

import random
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from shardline.services.preview import preview
from shardline.services.row_stream import StreamCounts, row_batches
from shardline_common.dataset.chain import ChainRecord
from shardline_common.job.hashing import document_hash
from shardline_common.job.messages import DeadLetter
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.job.spec_pii import PiiKind
from shardline_common.memory.store import MemoryStore
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.pii import KINDS
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem
from tests.make import job
from tests.simulation.simulated_source import MemorySource
from tests.support.embedded import run_from

MAILS = ("max.muster@example.org", "erika@example.com")
LETTER = DeadLetter("invalid_json", f"the line begins with {MAILS[0]}", "00" * 32, 25, MAILS[0].encode())
TEXTS = {
    "both": f"Schreiben Sie an {MAILS[0]} oder {MAILS[1]}, am besten an {MAILS[0]}. \u2028 Ende",
    "none": "Der Antrag ist schriftlich zu stellen.",
    "only": MAILS[1],
    "short": "kurz",
}
FIELDS: dict[str, dict[str, Any]] = {
    "both": {"title": f"Von {MAILS[1]}", "notes": {"an": [MAILS[0], 5], MAILS[1]: 1.50}},
    "none": {"title": "Antrag", "notes": {"n": 12345678901234567890123}},
    "only": {"title": "x"},
    "short": {"title": MAILS[0]},
}
COUNT = 60
NAMES = [*TEXTS, "dead"]


def items() -> list[SourceItem]:
    found = []
    for number in range(1, COUNT + 1):
        name = NAMES[number % len(NAMES)]
        content: Document | InvalidDocument = (
            InvalidDocument(f"in.jsonl:{number}", LETTER)
            if name == "dead"
            else Document(f"{name}-{number}", TEXTS[name], FIELDS[name])
        )
        found.append(SourceItem((0, number, number), content, 100))
    return found


def source() -> MemorySource:
    return MemorySource(items(), random.Random(1))


def redacting(**changes: Any) -> JobSpec:
    quality = {
        "min_score": 0,
        "keep_rejected": "full",
        "filters": [{"name": "length", "min_chars": 5}],
        "max_dead_letter_ratio": 1,
    }
    body: dict[str, Any] = {"quality": quality, "pii": "redact", "partitions": 2}
    return job(**(body | {"output": {"shard_bytes": 2048}} | changes))


async def run(spec: JobSpec, spool: Path, metrics: Metrics | None = None) -> MemoryStore:
    result, _, store = await run_from(spec, lambda *_: source(), spool, metrics)
    assert not spec.redacts or not any(mail in repr(result) for mail in MAILS)
    manifest = orjson.loads(await store.get(Layout.of(spec).manifest))
    assert result.view.to_json().get("pii") == manifest.get("pii")
    return store


async def bodies(store: MemoryStore, prefix: str = "") -> dict[str, bytes]:
    return {info.key: await store.get(info.key) async for info in store.list(prefix)}


async def rows_of(spec: JobSpec, store: MemoryStore) -> dict[str, dict[str, Any]]:
    found = await bodies(store, Layout.of(spec).root + "data/")
    lines = [orjson.loads(line) for body in found.values() for line in body.split(b"\n") if line]
    return {line["document_id"]: line for line in lines}


@pytest.mark.parametrize("assembled", [False, True])
async def test_nothing_of_a_job_that_redacts_holds_a_value(tmp_path: Path, assembled: bool) -> None:
    more = {"output": {"shard_bytes": 2048, "layout": "assembled"}} if assembled else {}
    spec = redacting(**more)
    store = await run(spec, tmp_path)
    for key, body in (await bodies(store)).items():
        for mail in MAILS:
            assert mail.encode() not in body, key
    rows = await rows_of(spec, store)
    both = next(row for name, row in rows.items() if name.startswith("both"))
    assert both["text"] == ("Schreiben Sie an [EMAIL_1] oder [EMAIL_2], am besten an [EMAIL_1]. \u2028 Ende")
    assert both["metadata"]["title"] == "Von [EMAIL_2]"
    assert orjson.loads(both["metadata"]["extra"]) == {"notes": {"an": ["[EMAIL_1]", 5], "[EMAIL_2]": 1.5}}
    none = next(row for name, row in rows.items() if name.startswith("none"))
    assert none["metadata"]["extra"] == '{"notes":{"n":12345678901234567890123}}'
    # Its text is longer than what was replaced, and passes therefore.
    assert sum(name.startswith("only") for name in rows) == 12
    assert not any(name.startswith("short") for name in rows)


async def test_replacements_in_rows_are_counted_by_kind(tmp_path: Path) -> None:
    spec = redacting()
    store = await run(spec, tmp_path)
    layout = Layout.of(spec)
    manifest = orjson.loads(await store.get(layout.manifest))
    # Of each document `both` three in the text, three in the metadata; one of `only`.
    assert manifest["pii"] == {"email": 12 * 6 + 12}
    assert "| personal data replaced: email | 84 |" in (await store.get(layout.card)).decode()
    assert [one["name"] for one in manifest["filters"]] == ["pii", "length"]


async def test_count_changes_no_row_and_reject_drops_those_that_have_any(tmp_path: Path) -> None:
    plain = await rows_of(spec := redacting(pii=None), await run(spec, tmp_path))
    counting = redacting(pii="count")
    store = await run(counting, tmp_path)
    assert await rows_of(counting, store) == plain
    manifest = orjson.loads(await store.get(Layout.of(counting).manifest))
    # Metadata without a column is one text.
    assert manifest["pii"] == {"email": 12 * 6 + 12}
    rejecting = redacting(pii={"action": "reject", "kinds": ["email"]})
    store = await run(rejecting, tmp_path)
    assert {name.split("-")[0] for name in await rows_of(rejecting, store)} == {"none"}
    manifest = orjson.loads(await store.get(Layout.of(rejecting).manifest))
    # The filter of personal data is the first: `short` has an address in its title.
    assert manifest["rejected"] == {"pii.email": 36}
    assert "pii" not in manifest


async def test_a_chain_record_without_personal_data_is_that_of_the_version_before(tmp_path: Path) -> None:
    spec = redacting(pii=None)
    store = await run(spec, tmp_path)
    found = await bodies(store, Layout.of(spec).chains)
    assert found
    for body in found.values():
        assert b'"pii"' not in body
        assert ChainRecord.decode(body).encode() == body


async def test_a_stream_and_a_preview_show_nothing_else(tmp_path: Path) -> None:
    spec = redacting()
    counts = StreamCounts()
    batches = row_batches(spec, lambda *_: source(), 7, counts)
    lines = [orjson.loads(line) async for batch in batches for line in batch]
    assert {line["document_id"]: line for line in lines} == await rows_of(spec, await run(spec, tmp_path))
    shown = await preview(spec, lambda *_: source(), documents=COUNT, seconds=60)
    assert not any(mail in repr(shown) for mail in MAILS)
    assert Counter(one.reason for one in shown.sample.documents)["length.too_few_chars"] == 12


def test_a_job_can_name_each_kind_that_is_found() -> None:
    assert set(get_args(PiiKind)) == set(KINDS)


async def test_the_hash_sum_is_of_the_ids(tmp_path: Path) -> None:
    spec = redacting()
    store = await run(spec, tmp_path)
    manifest = orjson.loads(await store.get(Layout.of(spec).manifest))
    total = sum(int(part["hash_sum"], 16) for part in manifest["partitions"]) % 2**64
    ids = [one.content.id if isinstance(one.content, Document) else one.content.key for one in items()]
    assert total == sum(document_hash(name.encode()) for name in ids) % 2**64
