"""What a run shows of an assembled job in each of its stages, and what a completed one shows."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline.services.embedded import EmbeddedRun
from shardline.services.job_view import JobView
from shardline.services.wiring.sources import source_factory
from shardline_common.dataset.decision_rules import Rules
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.stage_events import Stage
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import Body
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import JobSnapshot, Metrics
from shardline_producer.context import ProducerPolicy
from tests.make import job

ROWS, DIFFERENT = 120, 90


class SlowStore(MemoryStore):
    """Holds the head of the decision, and the record of the last shard, until a view has shown the stage."""

    def __init__(self, spec: JobSpec, *, slow: bool = True) -> None:
        super().__init__()
        layout = Layout.of(spec)
        held = {layout.decision: Stage.DECIDING, layout.shard_record("train", 4): Stage.ASSEMBLING}
        self._held = held if slow else {}
        self._shown = {stage: asyncio.Event() for stage in Stage}
        self.views: list[JobView] = []

    def show(self, view: JobView) -> None:
        self.views.append(view)
        event = view.stage_event
        # The other four shards do not wait.
        if event is not None and (event.stage is Stage.DECIDING or event.done == 4):
            self._shown[event.stage].set()

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:
        if key in self._held:
            await self._shown[self._held[key]].wait()
        await super().create(key, body, content_type=content_type)


def assembled(**changes: Any) -> JobSpec:
    body = {
        "source": {"type": "files", "paths": ["sample.jsonl"]},
        "partitions": 2,
        "quality": {"min_score": 0, "max_dead_letters": 10},
        "dedup": {"exact": True},
        "output": {"shards": {"count": 5}, "shard_bytes": 4096, "keep_staged": True},
    }
    return job(**(body | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [
        orjson.dumps(
            {"document_id": f"d{n}", "content": f"Der Text Nummer {n % DIFFERENT} der Sammlung von Urteilen"}
        )
        for n in range(ROWS)
    ]
    (tmp_path / "sample.jsonl").write_bytes(b"\n".join([*lines, b"{no json"]) + b"\n")
    return tmp_path


async def run(spec: JobSpec, store: SlowStore, folder: Path, metrics: Metrics) -> list[JobView]:
    """Run a job in this process; returns its views."""
    source = source_factory(Settings(), folder, confined=True, remote=None)
    policy = ProducerPolicy(progress_seconds=0.01)
    await EmbeddedRun(store, SystemClock(), metrics, source, policy, 1 << 28).run(spec, store.show)
    return store.views


class Recorded(Metrics):
    """Keeps what was set."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[tuple[Stage, float]] = []
        self.ratios: list[float] = []
        self.kept: list[int] = []

    def stage(self, job: str, stage: Stage, share: float) -> None:
        self.stages.append((stage, share))
        super().stage(job, stage, share)

    def progress(self, job: str, snapshot: JobSnapshot) -> None:
        self.ratios.append(snapshot.ratio)
        self.kept.append(snapshot.documents["kept"])
        super().progress(job, snapshot)


async def test_a_run_shows_its_stages_and_at_the_end_the_rows_of_the_dataset(folder: Path) -> None:
    spec, metrics = assembled(), Recorded()
    store = SlowStore(spec)
    views = await run(spec, store, folder, metrics)
    found = list(dict.fromkeys(view.stage for view in views))
    assert [stage for stage in found if stage] == ["landing", "deciding", "assembling"]
    assert [view.ratio for view in views] == sorted(view.ratio for view in views)
    assert any(view.phase == "assembling 4 of 5 shards" for view in views)
    assert all(view.ratio < 0.75 for view in views if view.stage is Stage.DECIDING)
    last, manifest = views[-1], Manifest.decode(await store.get(Layout.of(spec).manifest))
    assert last.state.state == "completed"
    assert (last.progress.rows, last.progress.bytes) == (manifest.totals["rows"], manifest.totals["bytes"])
    assert last.progress.rows == DIFFERENT
    assert last.progress.rejected == manifest.rejected == {"duplicate": ROWS - DIFFERENT}
    assert last.progress.dead == manifest.dead_letters == {"invalid_json": 1}
    # The gauges, which are gone when the attempt has ended.
    assert metrics.stages[-1] == (Stage.ASSEMBLING, 1.0)
    assert metrics.stages == sorted(metrics.stages, key=lambda one: (list(Stage).index(one[0]), one[1]))
    assert metrics.ratios == sorted(metrics.ratios)
    assert metrics.ratios[-1] == 1.0
    assert metrics.kept[-1] == DIFFERENT


async def test_a_run_that_finds_a_finished_dataset_shows_its_rows(folder: Path) -> None:
    spec = assembled()
    store = SlowStore(spec, slow=False)
    await run(spec, store, folder, Metrics())
    store.views.clear()
    views = await run(spec, store, folder, Metrics())
    assert views[-1].state.state == "completed"
    assert views[-1].progress.rows == DIFFERENT
    assert views[-1].progress.rejected == {"duplicate": ROWS - DIFFERENT}


async def test_the_steps_of_a_decision_are_those_it_leaves(folder: Path) -> None:
    spec = assembled(
        quality={"duplicate_ids": "first", "max_dead_letters": 10, "min_score": 0},
        dedup={"exact": True, "near": True},
        sample={"rows": 50},
        output={
            "splits": {"train": 0.9, "test": 0.1, "exact": True},
            "keep_staged": True,
            "shards": {"count": 5},
            "shard_bytes": 4096,
        },
    )
    store, layout = SlowStore(spec, slow=False), Layout.of(spec)
    await run(spec, store, folder, Metrics())
    stored = {info.key async for info in store.list(layout.steps)}
    assert stored == {layout.step(name) for name in Rules.of(spec, ()).steps}
