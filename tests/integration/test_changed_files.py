"""Whole jobs over a file that changes while it is read: the dataset is that of the old bytes, or none."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from shardline.services.embedded import EmbeddedRun
from shardline.services.job_view import JobView
from shardline.services.wiring.sources import source_factory
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerPolicy
from shardline_producer.sources.files import frozen_blocks, local_files
from tests.make import job
from tests.support.embedded import run_embedded, verify

# Planning samples 10,000 of them.
ROWS = 14_000
SPEC = job(
    source={"type": "files", "paths": ["in.jsonl"]},
    quality={"min_score": 0},
    output={"shard_bytes": 65_536},
    partitions=3,
)
TEXT = b"a text of the same length in each row"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and pages of which a small file has many."""
    monkeypatch.setattr(frozen_blocks, "_BLOCK", 16_384)
    monkeypatch.setattr(frozen_blocks, "_FIRST_PAGE", 2)
    monkeypatch.setattr(local_files, "_CHUNK", 16_384)


def rows(first: int) -> bytes:
    numbers = range(first, first + ROWS)
    return b"".join(b'{"document_id": "d%07d", "content": "%s"}\n' % (number, TEXT) for number in numbers)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(rows(0))
    os.utime(path, ns=(10**18, 10**18))
    return path


def put(path: Path, data: bytes) -> None:
    """Write a file with the time of the planned one."""
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))


def change_at(monkeypatch: pytest.MonkeyPatch, offset: int, change: Callable[[], object]) -> None:
    """Let the first read behind an offset find that the file was changed a moment before."""
    real, done = local_files._read, [False]

    def read(handle: BinaryIO) -> bytes:
        if handle.tell() >= offset and not done[0]:
            done[0] = True
            change()
        return real(handle)

    monkeypatch.setattr(local_files, "_read", read)


async def outcome(store: MemoryStore, view: JobView, digest: str) -> None:
    """The job is failed as changed, or its dataset is the one of the undisturbed run."""
    published = [info.key async for info in store.list(Layout.of(SPEC).success)]
    if view.state.state == "completed":
        report = await verify(SPEC, store)
        assert (report.ok, report.digest) == (True, digest), report.problems
    else:
        assert (view.state.state, view.state.code, published) == ("failed", "source_changed", [])
        assert "submit a new job" in str(view.state.message)


async def undisturbed(folder: Path) -> str:
    store = MemoryStore()
    assert (await run_embedded(SPEC, store, folder)).state.state == "completed"
    return str((await verify(SPEC, store)).digest)


@pytest.mark.parametrize("put_back", [True, False])
async def test_a_job_that_failed_by_a_change_never_ends_with_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path, put_back: bool
) -> None:
    digest, store = await undisturbed(tmp_path), MemoryStore()
    with monkeypatch.context() as patched:
        change_at(patched, 12_000 * len(rows(0)) // ROWS, lambda: source.write_bytes(rows(540)))
        view = await run_embedded(SPEC, store, tmp_path)
        await outcome(store, view, digest)
        assert view.state.state == "failed"
    put(source, rows(0) if put_back else rows(540))
    await outcome(store, await run_embedded(SPEC, store, tmp_path), digest)


async def test_a_killed_job_does_not_continue_over_another_file(tmp_path: Path, source: Path) -> None:
    digest, store = await undisturbed(tmp_path), MemoryStore()

    def stop_in_the_middle(view: JobView) -> None:
        if view.progress.rows:
            raise InterruptedError

    opened = source_factory(Settings(), tmp_path, confined=True, remote=None)
    policy = ProducerPolicy(progress_seconds=0.05)
    embedded = EmbeddedRun(store, SystemClock(), Metrics(), opened, policy, 1 << 28)
    with pytest.raises(InterruptedError):
        await embedded.run(SPEC, stop_in_the_middle)
    assert [info.key async for info in store.list(Layout.of(SPEC).chains)]
    put(source, rows(300))
    view = await run_embedded(SPEC, store, tmp_path)
    assert view.state.state == "failed"
    await outcome(store, view, digest)
    put(source, rows(0))
    view = await run_embedded(SPEC, store, tmp_path)
    assert view.state.state == "completed", view.to_json()
    await outcome(store, view, digest)
