"""The source `files`: every format, reads from any position, bounded memory."""

import gzip
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_common.errors import JobFailed
from shardline_common.job.messages import Position
from shardline_common.job.spec import FilesSource
from shardline_producer.sources.files.decompress import decompressor
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.file_format import FileFormat, by_name
from shardline_producer.sources.files.formats import detect
from shardline_producer.sources.files.lines import Line, LineSplitter
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import InvalidDocument, SourceItem
from tests.make import job, memory_pages
from tests.source_items import item_ids


def source(folder: Path, paths: Sequence[str], *, confined: bool = True, **changes: Any) -> FileDocuments:
    spec = job(source={"type": "files", "paths": list(paths)}, **changes)
    return FileDocuments(spec, LocalFiles(folder, confined), None, memory_pages())


async def items(found: FileDocuments, after: Position | None = None) -> list[SourceItem]:
    frozen = await found.freeze()
    return [item async for batch in found.read(frozen, after) for item in batch]


def line(number: int, **more: Any) -> bytes:
    return orjson.dumps({"document_id": f"d{number}", "content": f"text {number}"} | more)


def write(path: Path, data: bytes) -> None:
    if path.suffix == ".gz":
        half = len(data) // 2
        data = gzip.compress(data[:half]) + gzip.compress(data[half:])
    elif path.suffix == ".zst":
        half = len(data) // 2
        frames = zstandard.ZstdCompressor()
        data = frames.compress(data[:half]) + frames.compress(data[half:])
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson.gz", "a.jsonl.zst"])
async def test_read_resumes_at_every_position_of_every_format(tmp_path: Path, name: str) -> None:
    lines = [b"\xef\xbb\xbf" + line(0), b"", line(1) + b"\r", b"{broken", b"  \t ", line(2)]
    write(tmp_path / name, b"\n".join(lines))
    write(tmp_path / "b.jsonl", line(3) + b"\n")
    found = source(tmp_path, [name, "b.jsonl"])
    everything = await items(found)
    assert item_ids(everything) == ["d0", "d1", f"{name}:4", "d2", "d3"]
    assert [item.position[-1] for item in everything] == [1, 2, 3, 4, 5]
    assert [item.position for item in everything] == sorted(item.position for item in everything)
    for number, item in enumerate(everything):
        assert await items(found, item.position) == everything[number + 1 :]
    frozen = await found.freeze()
    assert found.progress(frozen, None) == 0
    assert 0 < found.progress(frozen, everything[1].position) <= 1


@given(
    st.lists(st.sampled_from([b"", b"x", b"{}", b"\r", b" " * 9, b"y" * 40, b"\xff"]), max_size=12),
    st.integers(1, 17),
    st.booleans(),
)
def test_lines_do_not_depend_on_chunks(parts: list[bytes], size: int, last: bool) -> None:
    data = b"\n".join(parts) + (b"\n" if last else b"")
    whole = LineSplitter(20)
    expected = [*whole.feed(data), *whole.finish()]
    split = LineSplitter(20)
    found: list[Line] = []
    for start in range(0, len(data), size):
        found += split.feed(data[start : start + size])
    found += split.finish()
    assert found == expected
    for item in expected:
        again = LineSplitter(20, item.number, item.end)
        rest = [*again.feed(data[item.end :]), *again.finish()]
        assert rest == [later for later in expected if later.number > item.number]


async def test_patterns_are_sorted_and_a_file_is_read_once(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write(tmp_path / f"part-{number}.jsonl", line(number))
    found = source(tmp_path, ["part-1.jsonl", "part-*.jsonl"])
    assert item_ids(await items(found)) == ["d1", "d0", "d2"]


@pytest.mark.parametrize("path", ["missing.jsonl", "none-*.jsonl", "../outside.jsonl", "link.jsonl"])
async def test_missing_and_outside_files_are_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "outside.jsonl").write_bytes(line(0))
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    with pytest.raises(JobFailed, match=r"read|no file") as caught:
        await source(root, [path]).freeze()
    assert caught.value.code == "source_invalid"


async def test_changed_file_fails_the_job(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, line(0) + b"\n" + line(1))
    found = source(tmp_path, ["a.jsonl"])
    frozen = await found.freeze()
    os.utime(path, ns=(1, 1))
    with pytest.raises(JobFailed) as caught:
        _ = [batch async for batch in found.read(frozen, None)]
    assert caught.value.code == "source_changed"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut", "noise"])
async def test_corrupt_stream_fails_the_job(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    write(path, b"\n".join(line(number) for number in range(500)))
    data = path.read_bytes()
    path.write_bytes(data[:-5] if damage == "cut" else b"no " + data)
    with pytest.raises(JobFailed, match="cannot be decompressed") as caught:
        await items(source(tmp_path, [name]))
    assert caught.value.code == "source_invalid"


async def test_filters_and_top_k(tmp_path: Path) -> None:
    rows = [line(number, year=2000 + number, kind="ab"[number % 2], flag=number == 3) for number in range(10)]
    write(tmp_path / "a.jsonl", b"\n".join(rows))

    async def chosen(**query: Any) -> list[str]:
        return item_ids(await items(source(tmp_path, ["a.jsonl"], query=query)))

    assert await chosen(top_k=3) == ["d0", "d1", "d2"]
    assert await chosen(filters={"kind": "b"}, top_k=2) == ["d1", "d3"]
    assert await chosen(filters={"year": {"gte": 2008}}) == ["d8", "d9"]
    assert await chosen(filters={"year": {"gte": "2008"}}) == []
    assert await chosen(filters={"document_id": ["d4", "d9"]}) == ["d4", "d9"]
    assert await chosen(filters={"flag": 1}) == []
    assert await chosen(filters={"flag": True}) == ["d3"]
    assert await chosen(filters={"kind": {"lte": "a"}, "year": {"gte": 2005}}) == ["d6", "d8"]


def test_unknown_filter_field_names_the_known_ones(tmp_path: Path) -> None:
    found = source(tmp_path, ["a.jsonl"], query={"filters": {"colour": "red"}})
    with pytest.raises(JobFailed, match="no field 'colour'; it has content, document_id, kind, score"):
        found.check_query(["kind"])


async def test_huge_line_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(line(0) + b"\n")
        for _ in range(128):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + line(1))
    found = source(tmp_path, ["a.jsonl"], max_document_bytes=65_536)
    # What the first read of a process imports is no part of a line.
    (tmp_path / "small.jsonl").write_bytes(line(0) + b"\n")
    await items(source(tmp_path, ["small.jsonl"]))
    tracemalloc.start()
    try:
        everything = await items(found)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert item_ids(everything) == ["d0", "a.jsonl:2", "d1"]
    broken = everything[1].content
    assert isinstance(broken, InvalidDocument)
    assert (broken.dead_letter.reason, broken.dead_letter.size, len(broken.dead_letter.original)) == (
        "too_large",
        128 << 20,
        65_536,
    )
    # Threads that come late under load hold some chunks of a MiB more.
    assert peak < 16 << 20


@pytest.mark.parametrize("name", ["bomb.gz", "bomb.zst"])
def test_decompression_bomb_comes_in_bounded_pieces(name: str) -> None:
    data = b"\0" * (256 << 20)
    packed = gzip.compress(data, 9) if name.endswith("gz") else zstandard.compress(data)
    decoder = decompressor(by_name(name).compression)
    largest = total = 0
    for start in range(0, len(packed), 1 << 18):
        for piece in decoder.feed(packed[start : start + (1 << 18)]):
            largest, total = max(largest, len(piece)), total + len(piece)
    decoder.finish()
    assert total == len(data)
    assert largest <= 140 << 20


LINES = {"type": "files", "paths": ["any.jsonl"], "format": "jsonl", "encoding": "utf-8"}


def is_read_as_lines(data: bytes) -> bool:
    """Whether bytes do not begin as a compressed file, a table, or another file that is known by them."""
    spec = job(source=LINES)
    assert isinstance(spec.source, FilesSource)
    try:
        return detect("any.jsonl", data, spec.source) == FileFormat()
    except JobFailed:
        return False


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.binary(max_size=400).filter(is_read_as_lines))
async def test_every_line_of_any_bytes_is_an_item(tmp_path: Path, data: bytes) -> None:
    """Where the job says that they are lines of UTF-8; otherwise, what is hardly a text is refused."""
    (tmp_path / "any.jsonl").write_bytes(data)
    everything = await items(FileDocuments(job(source=LINES), LocalFiles(tmp_path), None, memory_pages()))
    wanted = [part for part in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if part.strip(b" \t\r\n\v\f")]
    assert len(everything) == len(wanted)
