"""How a source proves its count: from the store's notes through plan pages and outcome to the manifest."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import orjson
import pytest

from shardline.services.embedded import EmbeddedRun
from shardline.services.job_view import JobView
from shardline.services.local_run import run_warnings
from shardline_common.job.findings import Certainty, Findings, Level, merged_findings, remarks, uncertain
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerPolicy
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.memory_database import MemoryDatabase
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.source import Document, InvalidDocument, OpenSource
from tests.make import job
from tests.support.embedded import verify

COLUMNS = {"title": "string"}
CHANGED = "changed while it was listed"


def laws(count: int) -> dict[str, Document]:
    names = [f"law-{number:04d}" for number in range(count)]
    return {name: Document(name, f"§ {name} " * 40, {"title": name}) for name in names}


class ChangingDatabase(MemoryDatabase):
    """Counts only, leaves out documents as deleted, and loses documents behind the first fetch."""

    lost: Sequence[str] = ()
    marked = 0

    async def entries(
        self, facts: Mapping[str, Any], after: Entry | None, limit: int | None, findings: Findings
    ) -> AsyncGenerator[list[Entry], None]:
        async for batch in super().entries(facts, after, limit, findings):
            findings.note("vectors", Level.COUNTED, CHANGED)
            findings.leave_out("bodies", self.marked)
            yield batch

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        found = await super().fetch(entries)
        for name in self.lost:
            self.documents.pop(name, None)
        return found


async def run(spec: JobSpec, database: MemoryDatabase, store: MemoryStore) -> JobView:
    return await run_source(spec, lambda spec, pages: PlannedSource(spec, database, pages), store)


async def run_source(spec: JobSpec, open_source: OpenSource, store: MemoryStore) -> JobView:
    limits = ProducerPolicy(progress_seconds=0.05)
    embedded = EmbeddedRun(store, SystemClock(), Metrics(), open_source, limits, 1 << 28)
    return (await embedded.run(spec, lambda _: None)).view


def scan(**changes: Any) -> JobSpec:
    quality = {"min_score": 0, **changes.pop("quality", {})}
    return job(source={"type": "uds3"}, partitions=2, quality=quality, **changes)


def test_the_findings_of_all_slices_are_those_of_the_source() -> None:
    parts = [Findings() for _ in range(3)]
    for part, level in zip(parts, (Level.PROVEN, Level.COUNTED, Level.PROVEN), strict=True):
        part.note("files", level, f"files are {level}")
        # The list that a store marks deleted documents in is that of the whole source.
        part.leave_out("bodies", 5)
    parts[1].ignore(1, 10, "b.gz")
    parts[2].ignore(2, 7, "c.gz")
    merged = merged_findings([part.to_json() for part in parts])
    assert merged == {
        "completeness": {"files": {"level": "counted", "how": "files are counted"}},
        "deleted": {"bodies": 5},
        "ignored": {"files": 3, "bytes": 17, "first": "b.gz"},
    }
    assert merged_findings([{}, {}]) == {}


def test_the_weakest_level_of_a_store_stays_and_counts_add_up() -> None:
    found = Findings()
    for level in (Level.COUNTED, Level.PROVEN, Level.UNPROVEN, Level.COUNTED):
        found.note("a", level, f"a is {level}")
    found.note("b", Level.PROVEN, "two lists agree")
    for count in (0, 2, 3):
        found.leave_out("b", count)
    found.leave_out("c", 0)
    assert found.stores["a"] == Certainty(Level.UNPROVEN, "a is unproven")
    assert found.deleted == {"b": 5}
    assert Findings.of(orjson.loads(orjson.dumps(found.to_json()))) == found
    unproven = "a: the count is unproven: a is unproven"
    assert uncertain(found.to_json()) == [unproven]
    assert remarks(found.to_json()) == [
        "5 documents were left out because b marks them deleted",
        unproven,
    ]


async def test_findings_reach_manifest_card_verify_and_the_last_lines_of_a_run() -> None:
    spec, store = scan(), MemoryStore()
    database = ChangingDatabase(spec, laws(30), COLUMNS)
    database.marked = 4
    view = await run(spec, database, store)
    assert view.state.state == "completed", view.to_json()
    source = orjson.loads(await store.get(Layout.of(spec).manifest))["source"]
    assert source["completeness"]["vectors"] == {"level": "counted", "how": CHANGED}
    assert source["completeness"]["memory"]["level"] == "proven"
    assert source["deleted"] == {"bodies": 4}
    report = await verify(spec, store)
    assert report.ok, report.problems
    assert report.to_json()["source"] == source == view.to_json()["source"] | {"count": 30}
    counted = f"vectors: the count is counted, not proven: {CHANGED}"
    assert report.notes == [counted]
    assert run_warnings(view.state) == [
        "4 documents were left out because bodies marks them deleted",
        counted,
    ]
    card = (await store.get(Layout.of(spec).card)).decode()
    assert counted in card
    assert "4 documents were left out" in card


async def test_findings_of_all_pages_are_known_to_a_producer_that_only_reads_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardline_producer.sources.planned._FIRST_PAGE", 10)
    spec, store = scan(), MemoryStore()
    database = ChangingDatabase(spec, laws(35), COLUMNS)
    database.marked = 1

    def source() -> PlannedSource:
        return PlannedSource(spec, database, StoredPlanPages(store, ""))

    frozen = await source().freeze()
    first = source()
    items = [item async for batch in first.read(frozen, None) for item in batch]
    late = source()
    assert [batch async for batch in late.read(frozen, items[-1].position)] == []
    pages = len([info async for info in store.list("")])
    assert pages > 1
    assert late.findings(frozen) == first.findings(frozen)
    # The last page may be empty; then nothing was listed for it.
    assert first.findings(frozen).deleted["bodies"] in (pages - 1, pages)


@pytest.mark.parametrize(("lost", "fails"), [(30, True), (12, False), (5, False)])
async def test_many_vanished_documents_fail_the_job(lost: int, *, fails: bool) -> None:
    spec, store = scan(), MemoryStore()
    database = ChangingDatabase(spec, laws(200), COLUMNS)
    database.lost = [f"law-{number:04d}" for number in range(70, 70 + 4 * lost, 4)]
    view = await run(spec, database, store)
    if fails:
        assert (view.state.state, view.state.code) == ("failed", "source_changed")
        assert "30 of 200 planned documents were removed or marked deleted" in (view.state.message or "")
    else:
        assert view.state.state == "completed", view.to_json()
        assert view.progress.dead == {"vanished": lost}


@pytest.mark.parametrize("limit", [{"max_vanished": 30}, {"max_vanished_ratio": 0.15}])
async def test_a_job_may_allow_more_vanished_documents(limit: Mapping[str, Any]) -> None:
    spec = scan(quality=limit)
    database = ChangingDatabase(spec, laws(200), COLUMNS)
    database.lost = [f"law-{number:04d}" for number in range(70, 190, 4)]
    view = await run(spec, database, MemoryStore())
    assert view.state.state == "completed", view.to_json()


async def test_vanished_documents_of_an_earlier_attempt_count() -> None:
    spec, store = scan(), MemoryStore()
    database = ChangingDatabase(spec, laws(200), COLUMNS)
    database.lost = [f"law-{number:04d}" for number in range(70, 190, 4)]
    assert (await run(spec, database, store)).state.code == "source_changed"
    database.lost = ()
    again = await run(spec, database, store)
    assert (again.state.attempt, again.state.code) == (2, "source_changed")
    assert "30 of 200 planned documents" in (again.state.message or "")


async def test_a_database_that_comes_back_empty_fails_the_job_at_once() -> None:
    spec = scan(quality={"max_vanished_ratio": 1.0})
    database = ChangingDatabase(spec, laws(200), COLUMNS)
    database.lost = list(database.documents)
    view = await run(spec, database, MemoryStore())
    assert (view.state.state, view.state.code) == ("failed", "source_changed")
    assert "the database is empty" in (view.state.message or "")


def test_a_checkpoint_without_findings_has_the_fields_of_the_version_before() -> None:
    state = JobState(job())
    assert not {"findings", "vanished"} & orjson.loads(state.encode()).keys()
    state.findings, state.vanished = {"deleted": {"a": 1}}, 3
    again = JobState.decode(state.encode())
    assert (again.findings, again.vanished) == (state.findings, 3)
    further = orjson.loads(state.encode()) | {"of_a_later_version": 1}
    assert JobState.decode(orjson.dumps(further)).vanished == 3


def test_an_outcome_without_findings_is_written_as_before() -> None:
    outcome = Outcome(1, "completed", "", "", "0.1", produced=[])
    assert b"findings" not in outcome.encode()
    assert Outcome.decode(outcome.encode(), "x") == outcome


def test_a_dataset_without_rows_names_the_score_of_the_job() -> None:
    state = JobState(job(quality={"min_score": 0.9}), warning="empty", source_count=3)
    [warning] = run_warnings(state)
    assert "no document passed the filters; quality.min_score of the job is 0.9" in warning
