"""A search over ChromaDB as a planned source: what its findings say, and when its collection changed."""

from collections.abc import Callable
from typing import Any

import pytest

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.findings import Findings
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.retry import Backoff
from shardline_producer.plan import make_plan
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import Document
from shardline_producer.sources.uds3.chroma.body_store import ChromaBodyStore
from shardline_producer.sources.uds3.chroma.collection import ChromaOptions
from shardline_producer.sources.uds3.chroma.ranker import ChromaRanker
from shardline_producer.sources.uds3.planned_store import ConfiguredStores, Uds3Store
from tests.embedding_stub import FixedEmbedder
from tests.make import job
from tests.support.chroma_stand_in import ChromaStandIn

SPEC = job(source={"type": "uds3"}, query={"text": "law", "search_types": ["vector"]})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pause", "longest"):
        monkeypatch.setattr(Backoff, name, lambda *_: 0.0)


@pytest.fixture
def store() -> ChromaStandIn:
    """Twelve documents of two chunks."""
    found = ChromaStandIn()
    fill(found)
    return found


def fill(store: ChromaStandIn) -> None:
    for number in range(12):
        for part in (1, 0):
            vector = (1.0, float(number + part))
            store.add(f"d{number:02}::chunk::{part}", vector, f"text {part}", total_chunks=2)


def source(options: ChromaOptions, pages: MemoryStore, spec: JobSpec = SPEC) -> PlannedSource:
    """The source of a process: nothing but the plan is shared with another one."""
    return PlannedSource(spec, Uds3Store(spec, stores(options)), StoredPlanPages(pages, ""))


def stores(options: ChromaOptions) -> ConfiguredStores:
    return ConfiguredStores(
        rankers={"vector": ChromaRanker(options, FixedEmbedder(1.0, 0.0))},
        body_stores=[ChromaBodyStore(options)],
    )


async def read(
    store: ChromaStandIn, between: Callable[[], None] = lambda: None, **query: Any
) -> tuple[dict[str, str], Plan, Findings]:
    """Plan in one process, and read in another: texts or reasons by id, the plan, and the findings."""
    pages = MemoryStore()
    spec = job(source={"type": "uds3"}, query={"text": "law", "search_types": ["vector"]} | query)
    async with store.running() as options:
        plan = await make_plan(spec, source(options, pages, spec))
        between()
        reader = source(options, pages, spec)
        items = [item.content async for batch in reader.read(plan.frozen, None) for item in batch]
        found = {
            one.id if isinstance(one, Document) else one.key: (
                one.text if isinstance(one, Document) else one.dead_letter.reason
            )
            for one in items
        }
        return found, plan, reader.findings(plan.frozen)


async def test_each_planned_document_is_whole_or_a_dead_letter(store: ChromaStandIn) -> None:
    store.remove("d03::chunk::0")
    store.records["d04::chunk::1"].document = None
    found, _, findings = await read(store)
    assert list(found) == [f"d{number:02}" for number in range(12)]
    assert {name: text for name, text in found.items() if text != "text 0\ntext 1"} == {
        "d03": "incomplete_text",
        "d04": "incomplete_text",
    }
    assert findings.to_json() == {
        "completeness": {
            "chromadb": {
                "level": "proven",
                "how": "two lists in a row named the same records, and each of them was read",
            }
        }
    }


@pytest.mark.parametrize("how", ["made anew", "removed", "emptied"])
async def test_a_collection_that_is_no_longer_that_of_the_plan_fails_the_job(
    store: ChromaStandIn, how: str
) -> None:
    def change() -> None:
        if how == "emptied":
            store.records.clear()
            return
        store.make_anew()
        fill(store)
        store.name = store.name if how == "made anew" else "other"

    with pytest.raises(JobFailed, match=f"'document_chunks' was {how} after the job was planned") as raised:
        await read(store, change)
    assert raised.value.code is FailureCode.SOURCE_CHANGED


async def test_a_wave_of_vanished_documents_asks_for_the_collection(store: ChromaStandIn) -> None:
    async with store.running() as options:
        uds3 = Uds3Store(SPEC, stores(options))
        facts = (await uds3.describe()).facts
        await uds3.check_standing(facts)
        store.records.clear()
        with pytest.raises(JobFailed, match="'document_chunks' was emptied") as raised:
            await uds3.check_standing(facts)
    assert raised.value.code is FailureCode.SOURCE_CHANGED


@pytest.mark.parametrize("filters", [{}, {"kind": "law"}])
async def test_documents_that_are_left_out_are_counted(store: ChromaStandIn, filters: dict[str, str]) -> None:
    for record in store.records.values():
        record.metadata = {"kind": "law"}
    store.records["d01::chunk::0"].metadata = {"kind": "law", "deleted": True}
    store.records["d02::chunk::1"].metadata = {"kind": "law", "is_deleted": "yes"}
    store.records["d02::chunk::0"].metadata = {"kind": "law", "is_deleted": "yes"}
    if filters:
        # No hit of the search, so that nothing is left out.
        store.add("d90", (1.0, 1.0), "x", kind="other", deleted=True)
    found, _, findings = await read(store, filters=filters)
    assert not {"d01", "d02", "d90"} & found.keys()
    assert findings.deleted == {"chromadb": 2}
