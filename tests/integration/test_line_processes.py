"""Lines that other processes read: the same items in the same order, whatever happens to a process."""

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from shardline.services.wiring.sources import source_factory
from shardline_common.job.columns import Columns
from shardline_common.memory.store import MemoryStore
from shardline_producer import pipeline
from shardline_producer.encoder import DocumentRenderer
from shardline_producer.sources.files import (
    frozen_blocks,
    line_pieces,
    line_workers,
    local_files,
    reading_processes,
)
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import AnyItem, InvalidDocument, RenderedItem, SourceItem
from tests.make import job, memory_pages
from tests.support import embedded

SECONDS = 60.0
COLUMNS = Columns({"lang": "string", "year": "int"})


@pytest.fixture(autouse=True)
def _small_files_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_processes, "_BYTES_OF_PROCESS", 1 << 12)
    monkeypatch.setattr(line_pieces, "_PIECE_BYTES", 1 << 14)
    monkeypatch.setattr(frozen_blocks, "_BLOCK", 1 << 14)
    monkeypatch.setattr(local_files, "_CHUNK", 1 << 14)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of lines, of which one is compressed; every kind of line is in them."""
    root, odd = tmp_path_factory.mktemp("lines"), random.Random(19)
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl"):
        lines = [_line(f"{name}-{number}", odd) for number in range(300)]
        data = b"\xef\xbb\xbf" + b"\n".join(lines)
        (root / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return root


def _line(name: str, odd: random.Random) -> bytes:
    kind = odd.randrange(12)
    if kind == 0:
        return odd.choice([b"", b"  ", b"{broken", b"[1]", b'{"doc":{"id":1}}', b"\xff", b'"' + b"z" * 9000])
    text = "Wort über „Zeile“\u2028 " * odd.randrange(1, 40) + ("x" * 9000 if kind == 1 else "")
    fields = {"doc": {"id": name, "body": text}, "lang": odd.choice(["de", "en"]), "year": odd.randrange(9)}
    return orjson.dumps(fields | {"score": odd.random(), "more": [odd.random()]}) + odd.choice([b"", b"\r"])


def _source(folder: Path, processes: int, **changes: Any) -> tuple[FileDocuments, DocumentRenderer]:
    fields = {"id": "/doc/id", "text": "{{/doc/body}} ({{lang}})"}
    spec = job(
        source={"type": "files", "paths": ["*.jsonl*"], "fields": fields},
        max_document_bytes=8192,
        output={"validation_fraction": 0.3, "group_by": "year"},
        **changes,
    )
    source = FileDocuments(spec, LocalFiles(folder), None, memory_pages(), processes=processes)
    return source, DocumentRenderer(spec, COLUMNS)


async def _items(folder: Path, processes: int, **changes: Any) -> list[AnyItem]:
    source, render = _source(folder, processes, **changes)
    frozen = await source.freeze()
    return [item async for batch in source.read_rendered(frozen, None, None, render) for item in batch]


@pytest.mark.parametrize("processes", [2, 3])
async def test_items_are_those_of_one_process(folder: Path, processes: int) -> None:
    query = {"filters": {"lang": "de"}}
    one = await _items(folder, 1, query=query)
    assert await _items(folder, processes, query=query) == one
    rendered = [item for item in one if isinstance(item, RenderedItem)]
    assert len(rendered) > 300
    assert {item.partition for item in rendered} == set(range(5))
    assert {"invalid_json", "missing_field", "too_large"} <= {
        item.content.dead_letter.reason
        for item in one
        if isinstance(item, SourceItem) and isinstance(item.content, InvalidDocument)
    }
    assert not psutil.Process().children(recursive=False) or _ended()


async def test_a_run_gives_one_dataset_with_blocks_from_processes_and_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for processes, blocks in ((2, True), (1, True), (1, False)):
        if not blocks:
            monkeypatch.setattr(pipeline, "sends_blocks", lambda _: False)
        spec = job(
            source={"type": "files", "paths": ["*.jsonl*"], "fields": {"id": "/doc/id", "text": "/doc/body"}},
            quality={"min_score": 0.35, "max_dead_letter_ratio": 0.5},
            output={"validation_fraction": 0.3, "shard_bytes": 65_536},
            max_document_bytes=8192,
        )
        store = MemoryStore()
        monkeypatch.setattr(embedded, "source_factory", partial(source_factory, processes=processes))
        view = await embedded.run_embedded(spec, store, folder)
        assert view.state.state == "completed", view.state.message
        report = await embedded.verify(spec, store)
        assert report.ok, report.problems
        assert report.rows > 100
        assert report.rejected
        assert report.dead_letters
        found.add(report.digest)
    assert len(found) == 1


async def test_parts_of_a_source_are_those_of_one_process(folder: Path) -> None:
    one, several = _source(folder, 1), _source(folder, 2)
    frozen = await one[0].freeze()
    cuts = await one[0].cut(frozen, 3)
    assert len(cuts.ranges) == 3
    count = 0
    for part in cuts.ranges:
        found = [
            [item async for batch in source.read_rendered(frozen, None, part, render) for item in batch]
            for source, render in (one, several)
        ]
        assert found[0] == found[1]
        count += len(found[0])
    assert count == len(await _items(folder, 1))


async def test_a_read_continues_behind_an_item_and_ends_at_top_k(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_processes, "_DOCUMENTS_OF_PROCESSES", 1)
    one = await _items(folder, 1)
    source, render = _source(folder, 2, query={"top_k": 700})
    frozen = await source.freeze()
    after = one[411].position
    rest = [item async for batch in source.read_rendered(frozen, after, None, render) for item in batch]
    assert rest == one[412:700]


async def test_what_a_killed_process_had_is_read_here(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_workers, "_PIECES_AHEAD", 8)
    expected = await _items(folder, 1)
    source, render = _source(folder, 2)
    frozen, found, killed = await source.freeze(), list[AnyItem](), 0
    async for batch in source.read_rendered(frozen, None, None, render):
        found += batch
        if not killed:
            for process in _workers(psutil.Process()):
                process.kill()
                killed += 1
    assert killed
    assert found == expected
    assert "this one parses" in caplog.text
    assert await _items(folder, 2) == expected


async def test_few_bytes_start_no_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(line_workers, "open_processes", refuse)
    monkeypatch.setattr(reading_processes, "_BYTES_OF_PROCESS", 1 << 30)
    assert await _items(folder, 2)
    monkeypatch.setattr(reading_processes, "_BYTES_OF_PROCESS", 1)
    # So many documents are read before a process has started.
    assert len(await _items(folder, 2, query={"top_k": 100})) == 100
    assert await _items(folder, 1)


def _workers(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for one in process.children(recursive=True):
        # One may end in the meantime.
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(one.cmdline()):
                found.append(one)
    return found


def _ended() -> bool:
    deadline = time.monotonic() + SECONDS
    while _workers(psutil.Process()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return True


PROGRAM = """
from shardline_producer.sources.files import frozen_blocks, line_pieces, local_files, reading_processes
reading_processes._BYTES_OF_PROCESS = line_pieces._PIECE_BYTES = 1 << 14
frozen_blocks._BLOCK = local_files._CHUNK = 1 << 14
from shardline.cli.app import main
main()
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """`shardline run` in a process group of its own, slowed down, and the processes that read for it."""
    row = orjson.dumps({"document_id": "d", "content": "wort " * 300}) + b"\n"
    (tmp_path / "in.jsonl").write_bytes(row * 400)
    source = {"type": "files", "paths": ["in.jsonl"]}
    (tmp_path / "job.json").write_bytes(orjson.dumps({"name": "slow", "source": source}))
    command = [sys.executable, "-c", PROGRAM, "run", "job.json", "--processes", "2"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"SHARDLINE_SOURCE_RATE": "8"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + SECONDS
        while len(workers := _workers(psutil.Process(process.pid))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process, workers
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_run(
    running: tuple[subprocess.Popen[str], list[psutil.Process]], number: signal.Signals
) -> None:
    process, workers = running
    if number is signal.SIGINT:
        # As a terminal does: to every process of the group, also to one that is starting.
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, alive = psutil.wait_procs(workers, timeout=SECONDS)
    assert not alive
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
