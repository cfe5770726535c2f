"""Where files are cut into slices, and that each slice reads its lines under the numbers of the whole."""

import gzip
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.messages import Position
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.files import frozen_blocks, local_files
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import Cuts, Document, Part, SourceItem
from tests.make import job, memory_pages
from tests.source_items import dead_letter_reasons, item_ids
from tests.unit.test_tables import Bucket as OneObject


class Slices:
    """A job over files. Each read is one of another process: only the pages in the store remain."""

    def __init__(self, folder: Path, *names: str, **source: Any) -> None:
        self.spec = job(source={"type": "files", "paths": list(names), **source})
        self.folder, self.store = folder, MemoryStore()
        self.frozen: list[dict[str, Any]] = []

    def open(self) -> FileDocuments:
        return FileDocuments(self.spec, LocalFiles(self.folder), None, StoredPlanPages(self.store, ""))

    async def cut(self, slices: int) -> Cuts:
        self.frozen = await self.open().freeze()
        return await self.open().cut(self.frozen, slices)

    async def read(self, part: Part | None, after: Position | None = None) -> list[SourceItem]:
        async with aclosing(self.open().read(self.frozen, after, part)) as batches:
            return [item async for batch in batches for item in batch]

    async def joined(self, parts: Sequence[Part]) -> list[SourceItem]:
        """The items of all parts, with the ordinals of the whole."""
        found: list[SourceItem] = []
        for part in parts:
            before = len(found)
            found += [
                replace(item, position=(*item.position[:-1], before + item.position[-1]))
                for item in await self.read(part)
            ]
        return found


def row(number: int, size: int = 0) -> bytes:
    return orjson.dumps({"document_id": f"d{number}", "content": "x" * size}) + b"\n"


class Bucket(OneObject):
    """A bucket with one object, which remembers where each read of it began."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.offsets: list[int] = []

    def stream_object(
        self, bucket: str, key: str, *, offset: int, etag: str, size: int
    ) -> AsyncGenerator[bytes, None]:
        self.offsets.append(offset)
        return super().stream_object(bucket, key, offset=offset, etag=etag, size=size)


def rows(count: int) -> bytes:
    return b"".join(row(number) for number in range(count))


LINES = st.lists(
    st.sampled_from([b"\n", b" \r\n", b"{broken\n", row(1), row(2, 90), row(3, 700), row(4)[:-1] + b"\r\n"]),
    max_size=12,
)
FILES = st.lists(
    st.tuples(st.booleans(), st.sampled_from([b"", b"\xef\xbb\xbf"]), LINES, st.sampled_from([b"", b'{"a'])),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(files=FILES, slices=st.integers(2, 9))
async def test_the_parts_of_any_files_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[Any], slices: int
) -> None:
    monkeypatch.setattr(frozen_blocks, "_BLOCK", 256)
    monkeypatch.setattr(frozen_blocks, "_FIRST_PAGE", 2)
    monkeypatch.setattr(local_files, "_CHUNK", 100)
    names = []
    for number, (packed, mark, lines, end) in enumerate(files):
        data = mark + b"".join(lines) + end
        names.append(f"{number}.jsonl.gz" if packed and data else f"{number}.jsonl")
        (tmp_path / names[-1]).write_bytes(gzip.compress(data) if packed and data else data)
    reading = Slices(tmp_path, *names, fields={"id": "line"}, format="jsonl")
    cuts = await reading.cut(slices)
    assert 1 <= len(cuts.ranges) <= slices
    assert bool(cuts.reason) == (len(cuts.ranges) < slices)
    whole = await reading.read(None)
    assert await reading.joined(cuts.ranges) == whole
    # What each slice has stored is enough to resume it anywhere.
    for part in cuts.ranges:
        items = await reading.read(part)
        for index in {0, len(items) // 2, len(items) - 1} if items else ():
            assert await reading.read(part, items[index].position) == items[index + 1 :]


async def test_jsonl_is_cut_at_line_ends_into_equal_parts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows(10_000))
    reading = Slices(tmp_path, "a.jsonl", fields={"id": "line"})
    cuts = await reading.cut(4)
    assert cuts.reason == ""
    starts = [part["start"] for part in cuts.ranges]
    # The lines have about the same length, and each line is a byte off its quarter at most by its length.
    assert [file for file, _, _ in starts] == [0] * 4
    assert all(abs(line - 2_500 * number) < 150 for number, (_, line, _) in enumerate(starts))
    assert [part["end"] for part in cuts.ranges] == [*starts[1:], [1, 0, 0]]
    third = await reading.read(cuts.ranges[2])
    assert item_ids(third)[0] == f"a.jsonl:{starts[2][1] + 1}"
    assert third[0].position == (0, starts[2][1] + 1, third[0].position[2], 1)


async def test_a_long_line_over_several_cuts_is_in_one_part(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(row(0) + row(1, 100_000) + row(2) + row(3))
    reading = Slices(tmp_path, "a.jsonl")
    cuts = await reading.cut(8)
    assert [item_ids(await reading.read(part)) for part in cuts.ranges] == [["d0", "d1"], ["d2", "d3"]]
    assert cuts.reason == "the files have too few lines"


async def test_more_slices_than_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows(3)[:-1])
    (tmp_path / "b.jsonl").write_bytes(b"")
    reading = Slices(tmp_path, "*.jsonl")
    cuts = await reading.cut(64)
    assert [item_ids(await reading.read(part)) for part in cuts.ranges] == [["d0"], ["d1"], ["d2"]]
    assert cuts.reason


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.csv", b"document_id,content\na,b\nc,d\n", "a.csv is a file of csv"),
        ("a.json", b'[{"document_id": "a", "content": "b"}]', "a.json is a file of json"),
        ("a.jsonl.gz", gzip.compress(rows(50)), "a.jsonl.gz is a file of jsonl in gzip"),
        ("a.jsonl", rows(50).decode().encode("utf-16"), "a.jsonl is a file of jsonl in utf-16-le"),
        ("a.txt", b"a text\nof lines\n", "a.txt is a file of text"),
    ],
)
async def test_other_files_are_cut_between_files_only(
    tmp_path: Path, name: str, data: bytes, kind: str
) -> None:
    (tmp_path / name).write_bytes(data)
    alone = Slices(tmp_path, name)
    cuts = await alone.cut(3)
    assert list(cuts.ranges) == [{}]
    assert cuts.reason == f"{kind}, and only uncompressed JSONL in UTF-8 is cut inside of a file"
    (tmp_path / "more").mkdir()
    for number in range(5):
        (tmp_path / "more" / f"{number}-{name}").write_bytes(data)
    several = Slices(tmp_path, "more/*")
    cuts = await several.cut(3)
    assert [(part["start"][0], part["end"][0]) for part in cuts.ranges] == [(0, 2), (2, 3), (3, 5)]
    assert cuts.reason == ""
    assert await several.joined(cuts.ranges) == await several.read(None)
    assert (await several.cut(6)).reason.startswith("there are 5 files, and only uncompressed JSONL")


async def test_slices_of_an_object_are_ranges_of_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(rows(1_000))
    local = Slices(tmp_path, "a", format="jsonl")
    parts = (await local.cut(3)).ranges
    bucket = Bucket(rows(1_000))
    spec = job(source={"type": "files", "paths": ["s3://b/in/a"], "format": "jsonl"})
    source = FileDocuments(spec, LocalFiles(tmp_path), S3Files(bucket), memory_pages())
    frozen = await source.freeze()
    assert (await source.cut(frozen, 3)).ranges == parts
    for part in parts:
        bucket.offsets.clear()
        found = [item async for batch in source.read(frozen, None, part) for item in batch]
        assert found == await local.read(part)
        assert bucket.offsets == [part["start"][2]]


async def test_a_large_file_that_cannot_be_cut_leaves_no_slice_empty(tmp_path: Path) -> None:
    for name, size in (("a.txt", 10_000), ("b.txt", 10), ("c.txt", 10)):
        (tmp_path / name).write_bytes(b"x" * size)
    reading = Slices(tmp_path, "*.txt")
    cuts = await reading.cut(3)
    assert [len(await reading.read(part)) for part in cuts.ranges] == [1, 1, 1]


async def test_a_file_with_several_names_is_cut_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows(100))
    os.link(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl").symlink_to("a.jsonl")
    reading = Slices(tmp_path, "*.jsonl")
    cuts = await reading.cut(2)
    parts = [item_ids(await reading.read(part)) for part in cuts.ranges]
    assert sorted(parts[0] + parts[1]) == sorted(f"d{number}" for number in range(100))
    assert all(parts)


async def test_a_line_that_ends_at_its_share_is_before_the_cut(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows(2))
    reading = Slices(tmp_path, "a.jsonl")
    cuts = await reading.cut(2)
    assert [item_ids(await reading.read(part)) for part in cuts.ranges] == [["d0"], ["d1"]]


@pytest.mark.parametrize("moved", ["one of the lines", "the line end at the cut"])
async def test_a_file_that_changed_behind_the_count_fails(tmp_path: Path, moved: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(rows(100))
    reading = Slices(tmp_path, "a.jsonl")
    cuts = await reading.cut(2)
    _, line, offset = cuts.ranges[0]["end"]
    status, data = path.stat(), bytearray(path.read_bytes())
    assert data[offset - 1] == ord("\n")
    # One line end more before the cut; then as many as were counted, and none at the cut.
    data[3] = ord("\n")
    if moved == "the line end at the cut":
        data[offset - 1] = ord(" ")
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(JobFailed, match=rf"a\.jsonl.*its line {line} does not end at byte") as caught:
        # Not a row of the last bytes before the cut.
        await anext(reading.open().read(reading.frozen, None, cuts.ranges[0]))
    assert caught.value.code is FailureCode.SOURCE_CHANGED


async def test_a_resumed_slice_counts_its_lines_to_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(rows(100))
    reading = Slices(tmp_path, "a.jsonl")
    cuts = await reading.cut(2)
    first = await reading.read(cuts.ranges[0])
    assert await reading.read(cuts.ranges[0], first[-1].position) == []
    file, line, offset, ordinal = first[-1].position
    with pytest.raises(JobFailed, match="does not end at byte"):
        await reading.read(cuts.ranges[0], (file, line - 1, offset, ordinal))


async def test_a_slice_hashes_only_its_own_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_blocks, "_BLOCK", 1024)
    (tmp_path / "a.jsonl").write_bytes(rows(1_000))
    reading = Slices(tmp_path, "a.jsonl")
    cuts = await reading.cut(4)
    hashed: list[int] = []
    digest = frozen_blocks._sha256

    def count(block: bytes) -> str:
        hashed.append(len(block))
        return digest(block)

    monkeypatch.setattr(frozen_blocks, "_sha256", count)
    items = await reading.read(cuts.ranges[2])
    size = cuts.ranges[2]["end"][2] - cuts.ranges[2]["start"][2]
    # Once for the page and once for the read, and at both ends a block that is cut.
    assert sum(hashed) <= 2 * (size + 2 * 1024)
    hashed.clear()
    await reading.read(cuts.ranges[2], items[len(items) // 2].position)
    assert sum(hashed) <= 2 * (size + 2 * 1024)


async def test_a_resumed_slice_compares_what_it_had_read_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_blocks, "_BLOCK", 1024)
    monkeypatch.setattr(frozen_blocks, "_FIRST_PAGE", 1)
    path = tmp_path / "a.jsonl"
    path.write_bytes(rows(1_000))
    reading = Slices(tmp_path, "a.jsonl")
    cuts = await reading.cut(2)
    items = await reading.read(cuts.ranges[1])
    # Pages of this slice are not those that the other one misses.
    assert len(await reading.read(cuts.ranges[0])) + len(items) == 1_000
    status, data = path.stat(), path.read_bytes()
    middle = items[len(items) // 2].position

    def change(number: int) -> None:
        path.write_bytes(data.replace(b'"d%d"' % number, b'"e%d"' % number))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    # What the other slice reads is compared by that one.
    change(1)
    assert await reading.read(cuts.ranges[1], middle) == items[len(items) // 2 + 1 :]
    change(999 - len(items) // 2 - 100)
    with pytest.raises(JobFailed, match="are not those that were read"):
        await reading.read(cuts.ranges[1], middle)


async def test_bytes_behind_compressed_data_are_found_by_the_slice_that_read_them(tmp_path: Path) -> None:
    for number in range(4):
        data = gzip.compress(b"".join(row(100 * number + one) for one in range(50)))
        (tmp_path / f"{number}.jsonl.gz").write_bytes(data + b"\0\0\0rest")
    reading = Slices(tmp_path, "*.gz")
    cuts = await reading.cut(2)
    counts = []
    for part in cuts.ranges:
        source = reading.open()
        last = [batch async for batch in source.read(reading.frozen, None, part)][-1][-1].position
        found = source.findings(reading.frozen).ignored
        assert [batch async for batch in source.read(reading.frozen, last, part)] == []
        assert source.findings(reading.frozen).ignored == found
        counts.append(found.get("files", 0))
    assert counts == [2, 2]


async def test_dead_letters_of_a_slice_have_the_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows(50) + b"\n \n{broken\n" + rows(50)[:-1])
    reading = Slices(tmp_path, "a.jsonl")
    cuts = await reading.cut(5)
    reasons = [dead_letter_reasons(await reading.read(part)) for part in cuts.ranges]
    assert reasons == [{}, {}, {"a.jsonl:53": "invalid_json"}, {}, {}]
    assert isinstance((await reading.read(cuts.ranges[0]))[0].content, Document)
