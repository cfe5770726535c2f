"""Files that end before their size, or go on behind it: read again, then named, never taken as whole."""

import errno
import gzip
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO, Self

import pytest

from shardline_common.errors import JobFailed, SourceUnavailable, StoreUnavailable
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.paths import open_regular
from shardline_common.runtime.retry import Backoff
from shardline_common.storage import directory
from shardline_common.storage.directory import DirectoryStore
from shardline_producer.sources.files import local_files
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from tests.make import job, memory_pages
from tests.source_items import item_ids
from tests.support.embedded import run_embedded

ROWS = b"".join(b'{"document_id": "d%03d", "content": "text"}\n' % number for number in range(437))
Read = Callable[[BinaryIO], bytes]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "longest", lambda *_: 0.0)


def ending_early(times: int, at: int = 9_000) -> Read:
    """A read that ends a file at a byte, this many times."""
    left = times
    real = local_files._read

    def read(handle: BinaryIO) -> bytes:
        nonlocal left
        before = handle.tell()
        found = real(handle)
        if left and before + len(found) > at:
            handle.seek(max(before, at))
            found = found[: max(0, at - before)]
            left -= not found
        return found

    return read


def local(folder: Path, name: str = "a.jsonl") -> FileDocuments:
    spec = job(source={"type": "files", "paths": [name]})
    return FileDocuments(spec, LocalFiles(folder), None, memory_pages())


async def test_a_local_file_that_ends_early_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    source = local(tmp_path)
    frozen = await source.freeze()
    monkeypatch.setattr(local_files, "_read", ending_early(2))
    items = [item for batch in [batch async for batch in source.read(frozen, None)] for item in batch]
    assert item_ids(items) == [f"d{number:03d}" for number in range(437)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
async def test_a_local_file_that_stays_short_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    body = gzip.compress(ROWS, 0) if name.endswith(".gz") else ROWS
    (tmp_path / name).write_bytes(body)
    monkeypatch.setattr(local_files, "_read", ending_early(1000))
    view = await run_embedded(job(source={"type": "files", "paths": [name]}), MemoryStore(), tmp_path)
    assert (view.state.state, view.state.code) == ("failed", "source_changed")
    assert f"{name} changed after the job was planned: its bytes end at 9000 of {len(body)}" in str(
        view.state.message
    )


async def test_a_local_file_that_is_longer_than_its_size_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    source = local(tmp_path)
    frozen = await source.freeze()
    real = local_files._read
    monkeypatch.setattr(local_files, "_read", lambda handle: real(handle) or b"{}\n")
    with pytest.raises(JobFailed, match="more bytes than the") as failed:
        _ = [batch async for batch in source.read(frozen, None)]
    assert failed.value.code == "source_changed"


@pytest.mark.parametrize(
    "pattern", ["*/a.jsonl", "*/*.jsonl", "**/*.jsonl", "s*/a.jsonl", "[s]ecret/*.jsonl"]
)
async def test_a_folder_that_may_not_be_seen_hides_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    for name in ("open", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_bytes(ROWS)
    files = LocalFiles(tmp_path)
    assert "secret/a.jsonl" in [file["path"] for file in await files.find(pattern)]

    def denied(call: Callable[..., Any], hidden: str) -> Callable[..., Any]:
        def refuse(path: str | os.PathLike[str], *more: Any, **named: Any) -> Any:
            inside = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
            if hidden in inside + "/":
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return call(path, *more, **named)

        return refuse

    # Nobody may list it; what is in it may not even be looked up by name.
    for name, hidden in (("scandir", "/secret/"), ("lstat", "/secret/a"), ("stat", "/secret/a")):
        monkeypatch.setattr(os, name, denied(getattr(os, name), hidden))
    with pytest.raises(JobFailed, match=r"secret.* cannot be read: Permission denied") as failed:
        await files.find(pattern)
    assert failed.value.code == "source_invalid"


class CutBucket:
    """A bucket whose store ends the one object early, and says so only at the end of the body."""

    def __init__(self, body: bytes, cut: int) -> None:
        self._body, self._cut = body, cut

    async def stream_object(
        self, bucket: str, key: str, *, offset: int, etag: str, size: int
    ) -> AsyncIterator[bytes]:
        assert (etag, size) == ('"1"', len(self._body))
        yield self._body[offset : self._cut]
        raise StoreUnavailable(f"s3://{bucket} cannot serve ({key} ends at {self._cut} of {size})")


@pytest.mark.parametrize("damage", [b"", b"<html>no gzip</html>"])
async def test_the_store_is_blamed_for_a_compressed_object_that_it_cuts(damage: bytes) -> None:
    body = gzip.compress(ROWS)
    sent = body[:700] + damage + body[700:]
    source = FileDocuments(
        job(source={"type": "files", "paths": ["s3://b/a.jsonl.gz"]}),
        LocalFiles(Path()),
        S3Files(CutBucket(sent, 900)),  # type: ignore[arg-type]
        memory_pages(),
    )
    frozen = [{"path": "s3://b/a.jsonl.gz", "size": len(sent), "version": '"1"'}]
    with pytest.raises(SourceUnavailable, match="ends at 900 of"):
        _ = [batch async for batch in source.read(frozen, None)]


class ShortFile:
    """A file whose bytes end early."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._length = file, length

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def read(self, size: int) -> bytes:
        """As much as there is before the early end."""
        left = max(0, self._length - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))


async def test_an_object_of_a_directory_that_ends_early_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path)
    await store.create("k", ROWS)
    monkeypatch.setattr(directory, "open_regular", lambda path: ShortFile(open_regular(path), 100))

    async def open_short(path: Path) -> ShortFile:
        return ShortFile(open_regular(path), 100)

    monkeypatch.setattr(directory, "open_to_read", open_short)
    with pytest.raises(StoreUnavailable, match=f"end at 100 of {len(ROWS)}"):
        await store.get("k")
    with pytest.raises(StoreUnavailable, match=f"end at 100 of {len(ROWS)}"):
        _ = [chunk async for chunk in store.stream("k")]
    with pytest.raises(StoreUnavailable, match="end at "):
        _ = [chunk async for chunk in store.stream("k", offset=50)]
