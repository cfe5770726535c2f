"""Files that change behind the reader: whatever size and time say, no other bytes join those of before."""

import gzip
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import zstandard

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.findings import Level
from shardline_common.job.messages import Position
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime import read_again
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.files import file_reader, frozen_blocks, local_files
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import Frozen, SourceItem
from tests.make import job, memory_pages
from tests.source_items import item_ids
from tests.support.embedded import first_key

ROWS = 2_000
IDS = [f"d{number:06d}" for number in range(ROWS)]
Change = Callable[[Path], object]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, pages and reads of which a small file has many."""
    monkeypatch.setattr(frozen_blocks, "_BLOCK", 4096)
    monkeypatch.setattr(frozen_blocks, "_FIRST_PAGE", 2)
    monkeypatch.setattr(local_files, "_CHUNK", 3000)
    monkeypatch.setattr(file_reader, "_BATCH_ITEMS", 50)


def rows(first: int = 0, count: int = ROWS) -> bytes:
    numbers = range(first, first + count)
    return b"".join(b'{"document_id": "d%06d", "content": "a text"}\n' % number for number in numbers)


def packed(data: bytes, name: str) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(data, 0, mtime=0)
    return zstandard.ZstdCompressor(level=1).compress(data) if name.endswith(".zst") else data


def overwrite(offset: int, data: bytes) -> Change:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return change


def replace(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    other.replace(path)


def keep_time(path: Path, change: Change) -> None:
    """Change a file, and give it its old time again."""
    status = path.stat()
    change(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


class Reader:
    """A job over files. Each read is one of another process: only the pages in the store remain."""

    def __init__(self, folder: Path, *names: str, **query: Any) -> None:
        self.folder, self.store = folder, MemoryStore()
        self.spec = job(source={"type": "files", "paths": list(names)}, query=query)
        self.frozen: Frozen = []
        self.source = self.open()

    def open(self) -> FileDocuments:
        self.source = FileDocuments(self.spec, LocalFiles(self.folder), None, StoredPlanPages(self.store, ""))
        return self.source

    async def plan(self) -> "Reader":
        self.frozen = await self.open().freeze()
        return self

    async def read(
        self,
        after: Position | None = None,
        upto: int | None = None,
        change: tuple[int, Callable[[], object]] | None = None,
    ) -> list[SourceItem]:
        """The items behind a position, about `upto` of them. A change is made behind so many items."""
        found: list[SourceItem] = []
        async with aclosing(self.open().read(self.frozen, after)) as batches:
            async for batch in batches:
                found += batch
                if change is not None and len(found) >= change[0]:
                    change[1]()
                    change = None
                if upto is not None and len(found) >= upto:
                    break
        return found


async def begun(folder: Path, name: str = "a.jsonl") -> tuple[Reader, list[SourceItem]]:
    """A job that has read a half of its file."""
    (folder / name).write_bytes(packed(rows(), name))
    reader = await Reader(folder, name).plan()
    return reader, await reader.read(upto=1_000)


def assert_changed(failed: pytest.ExceptionInfo[JobFailed], name: str = "a.jsonl") -> None:
    assert failed.value.code == FailureCode.SOURCE_CHANGED
    assert f"{name} changed after the job was planned" in str(failed.value)
    assert str(failed.value.hint).startswith("submit a new job")


CHANGES: dict[str, Callable[[Path, bytes], object]] = {
    "written": Path.write_bytes,
    "renamed": replace,
    "one byte": lambda path, _: overwrite(40, b"X")(path),
    "last byte read": lambda path, _: overwrite(20_000, b"X")(path),
}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("at", [None, 0, 600, -1], ids=["start", "first", "middle", "last"])
@pytest.mark.parametrize("how", CHANGES)
async def test_a_read_that_continues_over_other_bytes_fails(
    tmp_path: Path, name: str, at: int | None, how: str
) -> None:
    reader, first = await begun(tmp_path, name)
    old, new = packed(rows(), name), packed(rows(7), name)
    keep_time(tmp_path / name, lambda path: CHANGES[how](path, new.ljust(len(old), b"\n")[: len(old)]))
    with pytest.raises(JobFailed) as failed:
        await reader.read(None if at is None else first[at].position)
    assert_changed(failed, name)


@pytest.mark.parametrize("after_rows", [600, 1_999], ids=["in the next file", "at the end"])
async def test_a_file_that_was_read_whole_and_changed_fails_a_read_that_continues(
    tmp_path: Path, after_rows: int
) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows(0, 500))
    (tmp_path / "b.jsonl").write_bytes(rows(500, 1_500))
    reader = await Reader(tmp_path, "a.jsonl", "b.jsonl").plan()
    found = await reader.read()
    assert item_ids(found) == IDS
    keep_time(tmp_path / "a.jsonl", overwrite(60, b"X"))
    with pytest.raises(JobFailed) as failed:
        await reader.read(found[after_rows].position)
    assert_changed(failed)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
async def test_a_file_that_is_put_back_is_read_on(tmp_path: Path, name: str) -> None:
    reader, first = await begun(tmp_path, name)
    keep_time(tmp_path / name, lambda path: replace(path, packed(rows(7), name)))
    with pytest.raises(JobFailed):
        await reader.read(first[-1].position)
    keep_time(tmp_path / name, lambda path: replace(path, packed(rows(), name)))
    (tmp_path / name).chmod(0o600)
    rest = await reader.read(first[-1].position)
    assert item_ids(first + rest) == IDS
    assert item_ids(await reader.read()) == IDS
    assert reader.source.findings(reader.frozen).stores["files"].level == Level.PROVEN


async def test_a_file_that_changed_before_it_was_read_may_be_put_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(rows())
    planned_at = path.stat().st_mtime_ns
    reader = await Reader(tmp_path, "a.jsonl").plan()
    os.utime(path, ns=(1, 1))
    with pytest.raises(JobFailed) as failed:
        await reader.read()
    assert failed.value.code == FailureCode.SOURCE_CHANGED
    assert "put the file back" in str(failed.value.hint)
    os.utime(path, ns=(planned_at, planned_at))
    assert item_ids(await reader.read()) == IDS


@pytest.mark.parametrize("how", ["time kept", "time moved", "longer", "shorter", "replaced", "removed"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
async def test_a_file_that_changes_behind_the_reader_fails_the_job(
    tmp_path: Path, name: str, how: str
) -> None:
    path = tmp_path / name
    path.write_bytes(packed(rows(), name))
    reader = await Reader(tmp_path, name).plan()
    changes: dict[str, Callable[[], object]] = {
        "time kept": lambda: keep_time(path, overwrite(60, b"X")),
        "time moved": lambda: overwrite(60, b"X")(path),
        "longer": lambda: path.write_bytes(path.read_bytes() + rows(ROWS, 1)),
        "shorter": lambda: path.write_bytes(path.read_bytes()[:30_000]),
        "replaced": lambda: keep_time(path, lambda _: replace(path, packed(rows(7), name))),
        "removed": path.unlink,
    }
    with pytest.raises(JobFailed) as failed:
        await reader.read(change=(1_000, changes[how]))
    assert_changed(failed, name)
    assert failed.value.code == FailureCode.SOURCE_CHANGED


@pytest.mark.parametrize("kept", [True, False], ids=["time kept", "time moved"])
async def test_the_file_in_which_top_k_stops_is_checked_there(tmp_path: Path, kept: bool) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(rows())
    reader = await Reader(tmp_path, "a.jsonl", top_k=1_100).plan()
    assert item_ids(await reader.read()) == IDS[:1_100]
    change = overwrite(60, b"X")
    with pytest.raises(JobFailed) as failed:
        await reader.read(change=(1_050, lambda: keep_time(path, change) if kept else change(path)))
    assert_changed(failed)


async def test_a_job_that_reached_top_k_before_is_checked_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(rows())
    reader = await Reader(tmp_path, "a.jsonl", top_k=1_100).plan()
    last = (await reader.read())[-1].position
    assert await reader.read(last) == []
    keep_time(path, overwrite(60, b"X"))
    with pytest.raises(JobFailed) as failed:
        await reader.read(last)
    assert_changed(failed)


async def test_what_lies_behind_the_stop_of_top_k_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows())
    (tmp_path / "b.jsonl.gz").write_bytes(b"damaged")
    (tmp_path / "c.jsonl").write_bytes(rows())
    reader = await Reader(tmp_path, "a.jsonl", "b.jsonl.gz", "c.jsonl", top_k=ROWS).plan()
    (tmp_path / "c.jsonl").unlink()
    assert item_ids(await reader.read()) == IDS


async def test_touching_a_file_without_changing_it_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(rows())
    reader = await Reader(tmp_path, "a.jsonl").plan()
    found = await reader.read(change=(500, lambda: path.chmod(0o600)))
    assert item_ids(found) == IDS
    assert reader.source.findings(reader.frozen).stores["files"].level == Level.PROVEN


async def test_files_that_are_touched_before_they_are_read_are_named_in_the_proof(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(rows())
    reader = await Reader(tmp_path, "a.jsonl", "b.jsonl").plan()
    keep_time(tmp_path / "b.jsonl", lambda path: replace(path, rows(1)))
    await reader.read()
    found = reader.source.findings(reader.frozen).stores["files"]
    assert (found.level, found.how[:30]) == (Level.COUNTED, "the change time of 1 of the fi")


async def test_pages_grow_and_every_block_has_one_digest(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:02d}.jsonl").write_bytes(rows(number * 50, 50))
    reader = await Reader(tmp_path, "*.jsonl").plan()
    assert item_ids(await reader.read()) == IDS
    pages = [
        frozen_blocks.DigestPage.decode(await reader.store.get(info.key), info.key)
        async for info in reader.store.list("")
    ]
    assert sum(len(page.digests) for page in pages) == 40
    assert [page.first for page in pages] == [0, *(page.next for page in pages[:-1])]
    assert await reader.read() == await (await Reader(tmp_path, "*.jsonl").plan()).read()


async def test_the_digests_of_another_producer_count(tmp_path: Path) -> None:
    reader, first = await begun(tmp_path)
    other = Reader(tmp_path, "a.jsonl")
    other.store, other.frozen = reader.store, reader.frozen
    async with aclosing(other.open().read(other.frozen, None)) as batches:
        await anext(batches)
        rest = await reader.read(first[-1].position)
        assert item_ids(first + rest) == IDS
        keep_time(tmp_path / "a.jsonl", overwrite(60_000, b"X"))
        with pytest.raises(JobFailed) as failed:
            _ = [batch async for batch in batches]
    assert_changed(failed)


async def test_a_new_plan_is_not_compared_with_the_digests_of_an_old_one(tmp_path: Path) -> None:
    reader, _ = await begun(tmp_path)
    keep_time(tmp_path / "a.jsonl", lambda path: replace(path, rows(7)))
    await reader.plan()
    assert item_ids(await reader.read())[-1] == f"d{ROWS + 6:06d}"


async def test_a_plan_of_version_0_1_is_read_on(tmp_path: Path) -> None:
    reader, first = await begun(tmp_path)
    reader.frozen = [{name: file[name] for name in ("path", "size", "version")} for file in reader.frozen]
    assert item_ids(first + await reader.read(first[-1].position)) == IDS
    assert reader.source.findings(reader.frozen).stores["files"].level == Level.PROVEN


async def test_a_lost_page_of_digests_is_not_made_anew(tmp_path: Path) -> None:
    reader, first = await begun(tmp_path)
    keys = [info.key async for info in reader.store.list("")]
    await reader.store.delete([keys[1]])
    with pytest.raises(JobFailed, match=keys[1]) as failed:
        await reader.read(first[-1].position)
    assert failed.value.code == FailureCode.OBJECT_LOST


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"first": 1, "digests": ["a"]}', b'{"first": 0, "digests": []}', b"[]", b"\xff"]
)
async def test_a_damaged_page_of_digests_fails_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(read_again, "PAUSES", (0.0,))
    reader, first = await begun(tmp_path)
    key = await first_key(reader.store, "")
    await reader.store.delete([key])
    await reader.store.create(key, body)
    with pytest.raises(JobFailed, match=key) as failed:
        await reader.read(first[-1].position)
    assert failed.value.code == FailureCode.DATASET_DAMAGED


def test_objects_are_proven_by_their_etag() -> None:
    source = FileDocuments(
        job(source={"type": "files", "paths": ["s3://b/a"]}),
        LocalFiles(Path()),
        S3Files(None),  # type: ignore[arg-type]
        memory_pages(),
    )
    for version, level in (('"1"', Level.PROVEN), ("", Level.COUNTED)):
        frozen = [{"path": "s3://b/a", "size": 1, "version": version}]
        assert {name: one.level for name, one in source.findings(frozen).stores.items()} == {"s3": level}


async def test_a_block_is_read_once_and_only_some_of_them_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_blocks, "_FIRST_PAGE", 3)
    monkeypatch.setattr(frozen_blocks, "_HELD_BLOCKS", 2)
    (tmp_path / "a.jsonl").write_bytes(rows())
    reader = await Reader(tmp_path, "a.jsonl").plan()
    blocks = frozen_blocks.FrozenBlocks(
        reader.frozen, LocalFiles(tmp_path), StoredPlanPages(reader.store, "")
    )
    hashed, held = list[str](), list[int]()
    found, real = b"", blocks._blocks

    async def count(index: int, offset: int) -> AsyncGenerator[tuple[bytes, str], None]:
        async for block, digest in real(index, offset):
            hashed.append(digest)
            yield block, digest

    monkeypatch.setattr(blocks, "_blocks", count)
    async with aclosing(blocks.stream(0, 0)) as chunks:
        async for chunk in chunks:
            found += chunk
            held.append(len(blocks._held))
    assert found == rows()
    assert max(held) == 1
    # Pages of 3 blocks, of which 2 are held: the third one is read again.
    total = -(-len(rows()) // 4096)
    assert len(set(hashed)) == total
    assert len(hashed) - total == total // 3


async def test_a_page_of_digests_is_put_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows())
    reader = await Reader(tmp_path, "a.jsonl").plan()
    requests = Counter[str]()
    for name in ("create", "get", "list"):
        real = getattr(reader.store, name)

        def count(*args: Any, name: str = name, real: Any = real, **more: Any) -> Any:
            requests[name] += 1
            return real(*args, **more)

        monkeypatch.setattr(reader.store, name, count)
    pages = StoredPlanPages(reader.store, "")
    for _ in range(2):
        blocks = frozen_blocks.FrozenBlocks(reader.frozen, LocalFiles(tmp_path), pages)
        async with aclosing(blocks.stream(0, 0)) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == rows()
        # The one that stores them reads each of them to prove it, and the next one to use it.
        created = requests["create"]
        assert requests["get"] == created > 1
        requests["get"] = 0


async def test_blocks_that_another_producer_has_hashed_otherwise_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows())
    reader = await Reader(tmp_path, "a.jsonl").plan()
    pages = StoredPlanPages(reader.store, "")
    first, second = (frozen_blocks.FrozenBlocks(reader.frozen, LocalFiles(tmp_path), pages) for _ in range(2))
    # Both find no page, and the first one stores its own.
    await second._load_names()
    async with aclosing(first.stream(0, 0)) as chunks:
        await anext(chunks)
    keep_time(tmp_path / "a.jsonl", overwrite(60, b"X"))
    with pytest.raises(JobFailed) as failed:
        async with aclosing(second.stream(0, 0)) as chunks:
            await anext(chunks)
    assert_changed(failed)
