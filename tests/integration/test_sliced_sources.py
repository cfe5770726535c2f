"""Whole jobs in slices over files and lists: the rows are those of one slice, through restarts too."""

import asyncio
from collections import Counter
from pathlib import Path

import orjson
import pytest

from shardline.services.embedded import EmbeddedRun
from shardline.services.local_run import run_warnings
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerPolicy
from shardline_producer.sources import planned
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import Document
from tests.support.embedded import run_embedded, small_job, verify
from tests.unit.test_planned_cuts import MarkedDatabase

ROWS = 900


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of JSONL, with blank and broken lines."""
    lines = [
        b"{broken" if number % 100 == 99 else b"" if number % 50 == 3 else row(number)
        for number in range(ROWS)
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines[:700]) + b"\n")
    (tmp_path / "b.jsonl").write_bytes(b"\r\n".join(lines[700:]))
    return tmp_path


def row(number: int) -> bytes:
    return orjson.dumps({"content": f"Absatz {number} " * 30, "title": f"T{number}"})


def sliced(slices: int, *paths: str) -> JobSpec:
    source = {"type": "files", "paths": list(paths) or ["*.jsonl"], "fields": {"id": "line"}}
    return small_job(
        source=source, slices=slices, partitions=2, output={"shard_bytes": 8192}, quality={"min_score": 0.0}
    )


async def objects(store: MemoryStore, spec: JobSpec, kind: str) -> list[bytes]:
    """The objects of a kind, by key."""
    found = sorted([info.key async for info in store.list(Layout.of(spec).root + kind)])
    return [await store.get(key) for key in found]


async def test_the_rows_of_slices_are_those_of_one_slice_in_order(folder: Path) -> None:
    found = []
    for slices in (1, 3):
        spec, store = sliced(slices), MemoryStore()
        view = await run_embedded(spec, store, folder)
        assert view.state.state == "completed", view.to_json()
        report = await verify(spec, store)
        assert report.ok, report.problems
        rows = b"".join(await objects(store, spec, "data/")).splitlines()
        dead = b"".join(await objects(store, spec, "dead-letters/")).splitlines()
        assert len(rows) + len(dead) == view.state.source_count
        found.append((rows, [orjson.loads(one)["position"][-3:-1] for one in dead]))
        # The number of the slice leads the position, and the ordinal counts in the slice.
        for partition in range(spec.total_partitions):
            chain = await objects(store, spec, f"_state/chain/{partition:05d}/")
            positions = [orjson.loads(record)["position"] for record in chain]
            assert positions == sorted(positions)
            assert all(len(one) == 4 + (slices > 1) for one in positions)
            assert slices == 1 or {one[0] for one in positions} <= {partition // spec.slice_partitions}
    (one, dead_of_one), (three, dead_of_three) = found
    assert Counter(one) == Counter(three)
    assert len(one) > ROWS * 0.9
    assert sorted(dead_of_one) == sorted(dead_of_three)
    assert len(dead_of_one) == ROWS // 100


async def test_a_run_that_was_stopped_goes_on_in_every_slice(folder: Path) -> None:
    spec, undisturbed, store = sliced(3), MemoryStore(), MemoryStore()
    await run_embedded(spec, undisturbed, folder)
    stopped = asyncio.create_task(run_embedded(spec, store, folder))
    begun = 0
    async with asyncio.timeout(60):
        while begun < 3 and not stopped.done():
            await asyncio.sleep(0)
            begun = len([info async for info in store.list(Layout.of(spec).root + "data/")])
    assert not stopped.done(), "the run ended before it was stopped"
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)
    view = await run_embedded(spec, store, folder)
    assert view.state.state == "completed", view.to_json()
    assert (await verify(spec, store)).digest == (await verify(spec, undisturbed)).digest


async def test_what_is_one_range_says_why_and_has_the_digest_of_one_slice(folder: Path) -> None:
    (folder / "a.csv").write_bytes(b"content,title\n" + b"".join(b"text %d,t\n" % n for n in range(50)))
    digests = []
    for slices in (1, 4):
        spec, store = sliced(slices, "a.csv"), MemoryStore()
        view = await run_embedded(spec, store, folder)
        assert view.state.state == "completed", view.to_json()
        digests.append((await verify(spec, store)).digest)
    assert digests[0] == digests[1]
    sentence = (
        "1 of 4 slices have documents: a.csv is a file of csv, and only uncompressed JSONL in UTF-8 is cut "
        "inside of a file"
    )
    assert sentence in run_warnings(view.state)
    assert sentence in (await store.get(Layout.of(spec).card)).decode()


async def test_a_list_of_documents_in_slices_has_the_rows_and_findings_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planned, "_FIRST_PAGE", 50)
    content = {f"d{number}": Document(f"d{number}", f"text {number}", {}) for number in range(300)}
    found = []
    for slices in (1, 3):
        store = MemoryStore()
        spec = small_job(
            source={"type": "uds3"}, slices=slices, partitions=2, quality={"min_score": 0.0}, output={}
        )
        embedded = EmbeddedRun(
            store,
            SystemClock(),
            Metrics(),
            lambda spec, pages: PlannedSource(spec, MarkedDatabase(spec, content), pages),
            ProducerPolicy(progress_seconds=0.05),
            1 << 28,
        )
        view = (await embedded.run(spec, lambda _: None)).view
        assert view.state.state == "completed", view.to_json()
        assert (await verify(spec, store)).ok
        manifest = orjson.loads(await store.get(Layout.of(spec).manifest))
        rows = b"".join(await objects(store, spec, "data/")).splitlines()
        found.append((Counter(rows), manifest["source"], len(await objects(store, spec, "_state/plan/"))))
    assert found[0] == found[1]
    assert sum(found[0][0].values()) == found[0][1]["count"] == len(content)
    # Two documents are left out of each page.
    assert found[0][1]["deleted"] == {"memory": 2 * found[0][2]}
