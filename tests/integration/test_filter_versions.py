"""Filters and their files are those of the plan: a worker with others leaves the job alone."""

import asyncio
import dataclasses
import random
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from shardline.gateway.job_policy import JobPolicy, S3Prefix
from shardline.gateway.problems import Problem
from shardline.gateway.users import User
from shardline.services.embedded import EmbeddedRun
from shardline.services.job_view import JobView
from shardline.services.wiring.filter_files import file_fetcher
from shardline_common.curation import registry
from shardline_common.errors import FailureCode, JobFailed, UsageError
from shardline_common.job.filter_loading import FetchFile, FiltersDiffer, LoadedFilter, load_filters
from shardline_common.job.names import Layout
from shardline_common.job.plan import FrozenFilter, Plan
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_producer import plan as plan_module
from shardline_producer.context import ProducerPolicy
from shardline_producer.sources.source import Document, SourceItem
from tests.make import job
from tests.simulation.simulated_source import MemorySource
from tests.support import listed_filter
from tests.support.slice_system import running

TEXTS = ["eins", "zwei", "drei"]
POINT = EntryPoint("texts", "tests.support.listed_filter:FILTER", registry.GROUP)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "entry_points", lambda **_: [POINT])
    registry._installed.cache_clear()
    registry.load_filter.cache_clear()
    yield
    registry._installed.cache_clear()
    registry.load_filter.cache_clear()


def listed(address: object, **more: Any) -> JobSpec:
    quality = {"min_score": 0, "filters": [{"name": "texts", "texts": str(address), **more}]}
    return job(quality=quality, partitions=1)


def source(*texts: str) -> MemorySource:
    items = [
        SourceItem((0, number, number), Document(f"doc-{number}", text, {}), 100)
        for number, text in enumerate(texts or TEXTS, 1)
    ]
    return MemorySource(items, random.Random(1))


def of_version(number: int) -> None:
    """This process has another version of the filter from now on."""
    registry.load_filter.cache_clear()
    listed_filter.FILTER = dataclasses.replace(listed_filter.FILTER, version=number)


@pytest.fixture
def versions() -> Iterator[None]:
    kept = listed_filter.FILTER
    yield
    listed_filter.FILTER = kept


def planning(monkeypatch: pytest.MonkeyPatch, **frozen: Any) -> None:
    """Jobs are planned as where the filter was another one."""

    async def load(*given: Any) -> list[LoadedFilter]:
        found = await load_filters(*given)
        return [LoadedFilter(dataclasses.replace(one.frozen, **frozen), one.rules) for one in found]

    monkeypatch.setattr(plan_module, "load_filters", load)


async def run(spec: JobSpec, store: MemoryStore, fetch: FetchFile, *texts: str) -> JobView:
    embedded = EmbeddedRun(
        store,
        SystemClock(),
        Metrics(),
        lambda *_: source(*texts),
        ProducerPolicy(),
        1 << 28,
        fetch_file=fetch,
    )
    return (await embedded.run(spec, lambda _: None)).view


def fetcher(folder: Path) -> FetchFile:
    return file_fetcher(folder, confined=True, remote=None)


async def test_the_file_of_a_filter_is_fetched_and_frozen_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("zwei\n", "utf-8")
    spec, store = listed("texts.txt"), MemoryStore()
    view = await run(spec, store, fetcher(tmp_path))
    assert (view.state.state, view.progress.rejected) == ("completed", {"texts.listed": 1})
    (frozen,) = Plan.decode(await store.get(Layout.of(spec).plan)).filters
    assert (
        frozen
        == FrozenFilter(
            "texts",
            1,
            {"texts": "texts.txt", "most": 0},
            ["texts.listed"],
            files={"texts": "35d30ba5c5dbc3a5f5c6e7ae8df5d0bbc1e4d3f55ed9f4cd4b2fd7fd0c1a61cb"},
        )
        or len(frozen.files["texts"]) == 64
    )


async def test_a_file_that_has_changed_since_planning_fails_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts.txt").write_text("zwei\n", "utf-8")
    planning(monkeypatch, files={"texts": "00" * 32})
    view = await run(listed("texts.txt"), MemoryStore(), fetcher(tmp_path))
    assert (view.state.state, view.state.code) == ("failed", "source_changed")
    assert "texts" in (view.state.message or "")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("missing.txt", "missing.txt"),
        ("../outside.txt", "is outside of|is 0 files"),
        ("s3://bucket/texts.txt", "has no client for S3"),
    ],
)
async def test_a_file_that_cannot_be_read_fails_the_job_at_planning(
    tmp_path: Path, address: str, sentence: str
) -> None:
    folder = tmp_path / "root"
    folder.mkdir()
    (tmp_path / "outside.txt").write_text("x", "utf-8")
    with pytest.raises(JobFailed, match=sentence) as error:
        await load_filters(listed(address), fetcher(folder), tmp_path / "a")
    assert error.value.code is FailureCode.SOURCE_INVALID


@pytest.mark.parametrize("address", ["/etc/passwd", "s3://other/texts.txt", "s3://own/x/../texts.txt"])
def test_the_gateway_reads_the_files_of_filters_by_the_rules_of_sources(address: str) -> None:
    policy = JobPolicy((S3Prefix.parse("s3://own/lists"),))
    spec = listed(address).model_copy(update={"source": job(source={"type": "uds3"}).source})
    with pytest.raises(Problem):
        policy.check(spec, User("u", "u"), lambda: ())
    allowed = listed("s3://own/lists/texts.txt").model_copy(update={"source": spec.source})
    policy.check(allowed, User("u", "u"), lambda: ())


async def test_an_error_of_a_rule_fails_the_job_and_names_the_document(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("zwei\n", "utf-8")
    view = await run(listed("texts.txt"), MemoryStore(), fetcher(tmp_path), "eins", "fail")
    assert (view.state.state, view.state.code) == ("failed", "filter_failed")
    assert "texts.listed failed on the document 'doc-2': ValueError" in (view.state.message or "")


@pytest.mark.usefixtures("versions")
async def test_filters_that_differ_from_those_of_the_plan_are_named(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("zwei\n", "utf-8")
    spec = listed("texts.txt")
    planned = [one.frozen for one in await load_filters(spec, fetcher(tmp_path), tmp_path / "a")]
    of_version(2)
    with pytest.raises(FiltersDiffer, match="version 1 of texts, here it is 2"):
        await load_filters(spec, fetcher(tmp_path), tmp_path / "b", planned)
    of_version(1)
    other = [dataclasses.replace(planned[0], parameters={"texts": "texts.txt", "most": 3})]
    with pytest.raises(FiltersDiffer, match="other values of texts: most"):
        await load_filters(spec, fetcher(tmp_path), tmp_path / "c", other)
    other = [dataclasses.replace(planned[0], libraries={"regex": "1"})]
    with pytest.raises(FiltersDiffer, match="texts with regex 1, here with no library"):
        await load_filters(spec, fetcher(tmp_path), tmp_path / "d", other)
    with pytest.raises(FiltersDiffer, match="it has none, here there are texts"):
        await load_filters(spec, fetcher(tmp_path), tmp_path / "e", [])


@pytest.mark.usefixtures("versions")
async def test_a_run_with_another_version_ends_and_one_with_the_right_one_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts.txt").write_text("zwei\n", "utf-8")
    spec, store = listed("texts.txt"), MemoryStore()
    planning(monkeypatch, version=2)
    with pytest.raises(UsageError, match="version 2 of texts, here it is 1"):
        await run(spec, store, fetcher(tmp_path))
    of_version(2)
    view = await run(spec, store, fetcher(tmp_path))
    assert (view.state.state, view.progress.rows) == ("completed", 2)


@pytest.mark.usefixtures("versions")
async def test_a_worker_with_another_version_leaves_the_job_to_those_with_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "texts.txt").write_text("zwei\n", "utf-8")
    spec = listed("texts.txt")
    planning(monkeypatch, version=2)
    async with running(source(), tmp_path, 1, fetch_file=fetcher(tmp_path)) as system:
        await system.client.submit(spec)
        view = await system.until(spec, lambda view: "leaves the job alone" in (view.waiting or ""))
        assert "version 2 of texts, here it is 1" in (view.waiting or "")
        assert "this worker leaves the job alone: " in caplog.text
        assert not view.progress.rows
        of_version(2)
        other = asyncio.create_task(system.worker().run())
        try:
            view = await system.finished(spec)
            assert (view.progress.rows, view.waiting) == (2, None)
        finally:
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)
