"""Jobs with filters: the same rows from one worker and from three, and from streams and previews."""

import asyncio
import random
import secrets
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

import shardline
from shardline.services.preview import preview
from shardline.services.row_stream import StreamCounts, row_batches
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.job.names import Layout
from shardline_common.job.plan import Plan
from shardline_common.job.reasons import OWN_REASONS
from shardline_common.job.spec import JobSpec
from shardline_common.kafka.broker import open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import ObjectStore
from shardline_consumer.filters.clara import Rejection
from shardline_producer.sources.source import Document, SourceItem
from tests.make import job
from tests.simulation.simulated_source import MemorySource
from tests.support.embedded import run_from
from tests.support.slice_system import SliceSystem, running

FULL = {"title": "t", "domain": "d", "document_type": "x"}
COUNT = 400


def text_of(number: int) -> str:
    return "" if number % 50 == 0 else f"Satz {number} \u2028 " * (number % 23)


ITEMS = [
    SourceItem((0, number, number), Document(f"doc-{number}", text_of(number), FULL), 100)
    for number in range(1, COUNT + 1)
]
LENGTH = {"name": "length", "min_words": 9, "max_chars": 170}


def filtered(**changes: Any) -> JobSpec:
    quality = {"min_score": 0, "filters": [LENGTH], "keep_rejected": "full"} | changes.pop("quality", {})
    body: dict[str, Any] = {"partitions": 3, "output": {"shard_bytes": 4096}, "quality": quality}
    return job(**(body | changes))


def by_hand() -> tuple[set[str], Counter[str]]:
    """The ids of the rows, and the rejections."""
    kept, rejected = set[str](), Counter[str]()
    for number in range(1, COUNT + 1):
        text = text_of(number)
        if not text.strip():
            rejected["empty"] += 1
        elif len(text) > 170:
            rejected["length.too_many_chars"] += 1
        elif len(text.split()) < 9:
            rejected["length.too_few_words"] += 1
        else:
            kept.add(f"doc-{number}")
    return kept, rejected


def source() -> MemorySource:
    return MemorySource(ITEMS, random.Random(1))


async def run_here(spec: JobSpec, spool: Path) -> tuple[Report, MemoryStore]:
    found = await run_from(spec, lambda *_: source(), spool)
    return found.report, found.store


async def checked(spec: JobSpec, store: ObjectStore) -> Report:
    report = await Verifier(store, Layout.of(spec).root).run()
    assert report.ok, report.problems
    return report


async def lines_of(spec: JobSpec, store: ObjectStore, folder: str) -> list[dict[str, Any]]:
    root = Layout.of(spec).root + folder
    keys = sorted([info.key async for info in store.list(root)])
    return [orjson.loads(line) for key in keys for line in (await store.get(key)).split(b"\n") if line]


async def test_a_job_keeps_what_the_filters_keep_and_says_why_of_the_others(tmp_path: Path) -> None:
    spec = filtered()
    report, store = await run_here(spec, tmp_path)
    kept, rejected = by_hand()
    assert report.rejected == rejected
    assert {row["document_id"] for row in await lines_of(spec, store, "data/")} == kept
    lines = {one["document_id"]: one for one in await lines_of(spec, store, "rejected/")}
    measured = {"length.too_few_words": ("min_words", 9), "length.too_many_chars": ("max_chars", 170)}
    for number in range(1, COUNT + 1):
        if (line := lines.get(f"doc-{number}")) is None:
            continue
        assert line["text"] == text_of(number)
        if line["reason"] == "empty":
            assert "value" not in line
            continue
        name, bound = measured[line["reason"]]
        value = len(text_of(number).split()) if name == "min_words" else len(text_of(number))
        assert (line["value"], line["threshold"]) == (value, bound)
    plan = Plan.decode(await store.get(Layout.of(spec).plan))
    assert [(one.name, one.version) for one in plan.filters] == [("length", 1)]
    assert set(plan.filters[0].reasons) > {reason for reason in rejected if reason != "empty"}


async def test_a_job_that_keeps_no_rejected_documents_judges_as_one_that_does(tmp_path: Path) -> None:
    spec = filtered()
    report, store = await run_here(spec, tmp_path)
    without = filtered(quality={"keep_rejected": False})
    other, others = await run_here(without, tmp_path)
    assert (other.digest, other.rejected) == (report.digest, report.rejected)
    assert await lines_of(without, others, "data/") == await lines_of(spec, store, "data/")


async def with_workers(spec: JobSpec, spool: Path, count: int, kafka: str | None = None) -> Report:
    async with AsyncExitStack() as stack:
        brokers = []
        if kafka is not None:
            options = KafkaOptions(kafka, prefix="t" + secrets.token_hex(4) + ".", session_timeout_ms=6000)
            brokers = [await stack.enter_async_context(open_kafka(options))]
        system: SliceSystem = await stack.enter_async_context(running(source(), spool, 1, brokers=brokers))
        others = [asyncio.create_task(system.worker().run()) for _ in range(count - 1)]
        try:
            await system.client.submit(spec)
            await system.finished(spec)
            return await system.verified(spec)
        finally:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)


async def test_one_worker_and_three_make_the_same_dataset(tmp_path: Path) -> None:
    spec = filtered()
    digests = {(await with_workers(spec, tmp_path, count)).digest for count in (1, 3)}
    assert digests == {(await run_here(spec, tmp_path))[0].digest}


async def test_three_workers_on_kafka_make_the_dataset_of_a_run(tmp_path: Path, kafka: str) -> None:
    spec = filtered()
    report = await with_workers(spec, tmp_path, 3, kafka)
    assert report.digest == (await run_here(spec, tmp_path))[0].digest


async def test_an_assembled_job_judges_as_any_other(tmp_path: Path) -> None:
    spec = filtered(output={"shard_bytes": 4096, "order": "source"}, dedup={"exact": True})
    report, store = await run_here(spec, tmp_path)
    kept, rejected = by_hand()
    rows = await lines_of(spec, store, "data/")
    assert Counter(report.rejected) - Counter(duplicate=COUNT) == rejected
    assert {row["document_id"] for row in rows} <= kept
    assert {row["text"] for row in rows} <= {text_of(int(name.removeprefix("doc-"))) for name in kept}
    plain = filtered(output={"shard_bytes": 4096, "order": "source"})
    rows_of_all = [row async for batch in stream(plain) for row in batch]
    assert [orjson.loads(line)["document_id"] for line in rows_of_all] == [
        row["document_id"] for row in await lines_of(plain, (await run_here(plain, tmp_path))[1], "data/")
    ]


def stream(spec: JobSpec, counts: StreamCounts | None = None) -> Any:
    return row_batches(spec, lambda *_: source(), 50, counts or StreamCounts())


async def test_a_stream_and_a_preview_judge_as_the_job_does(tmp_path: Path) -> None:
    spec = filtered()
    _, store = await run_here(spec, tmp_path)
    rows = {row["document_id"]: row for row in await lines_of(spec, store, "data/")}
    counts = StreamCounts()
    streamed = [orjson.loads(line) async for batch in stream(spec, counts) for line in batch]
    assert {row["document_id"]: row for row in streamed} == rows
    assert (set(rows), counts.rejected) == by_hand()
    shown = await preview(spec, lambda *_: source(), documents=COUNT, seconds=60)
    assert {one.document_id for one in shown.sample.documents if one.reason is None} == set(rows)
    assert Counter(one.reason for one in shown.sample.documents if one.reason) == counts.rejected
    short = next(one for one in shown.sample.documents if one.reason == "length.too_few_words")
    assert short.value is not None
    assert short.value < (short.threshold or 0) == 9


@pytest.mark.parametrize("preset", ["web-de", "legal-de"])
async def test_a_preset_judges_by_its_filters_and_not_by_the_score(tmp_path: Path, preset: str) -> None:
    spec = job(quality={"preset": preset}, partitions=2)
    report, _ = await run_here(spec, tmp_path)
    assert "below_min_score" not in report.rejected
    assert any("." in reason for reason in report.rejected)


def test_the_reasons_of_every_job_are_those_of_the_score() -> None:
    assert set(OWN_REASONS) == {reason.value for reason in Rejection}


async def test_verify_refuses_a_reason_that_no_filter_of_the_plan_gives(tmp_path: Path) -> None:
    spec = filtered()
    _, store = await run_here(spec, tmp_path)
    key = Layout.of(spec).plan
    plan = Plan.decode(await store.get(key))
    plan.filters[0].reasons.remove("length.too_many_chars")
    await store.delete([key])
    await store.create(key, plan.encode())
    problems = (await Verifier(store, Layout.of(spec).root).run()).problems
    sentence = "documents are rejected for length.too_many_chars, which no filter of the plan gives"
    assert sentence in problems
    assert "manifest.json: 'filters' is not what job, plan, outcome and chains give" in problems


async def test_explain_names_the_rule_the_value_and_the_threshold(tmp_path: Path) -> None:
    lines = [{"document_id": f"doc-{number}", "content": text_of(number)} for number in range(1, 60)]
    (tmp_path / "in.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    paths = {"type": "files", "paths": [str(tmp_path / "in.jsonl")]}
    for name, more in (("streamed", {}), ("assembled", {"layout": "assembled"})):
        spec = filtered(source=paths, output={"shard_bytes": 4096, **more}, job_id=name)
        result = await shardline.run(orjson.loads(spec.body()), output=tmp_path / name)
        (found,) = (await shardline.explain(result.dataset, "doc-3")).records
        assert (found.reason, found.value, found.threshold) == ("length.too_few_words", 6, 9)
