"""Compressed files that hold nothing: an upload that was cut to 0 bytes is not a file without rows."""

import gzip
import struct
from pathlib import Path

import pytest
import zstandard

from shardline_common.errors import JobFailed
from shardline_producer.sources.files.decompress import Decompressor, decompressor
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.file_format import by_name
from shardline_producer.sources.files.file_locations import LocalFiles
from tests.make import job, memory_pages
from tests.source_items import item_ids

ROW = b'{"document_id": "a", "content": "x"}\n'
SKIPPABLE = struct.pack("<II", 0x184D2A5F, 4) + b"abcd"
EMPTY = [
    ("a.jsonl.gz", b"", "a.jsonl.gz has 0 bytes"),
    ("a.jsonl.zst", b"", "a.jsonl.zst has 0 bytes"),
    ("a.jsonl.gz", b"\0" * 700, "holds 700 zero bytes"),
    ("a.jsonl.zst", SKIPPABLE, "holds no frame with data"),
    ("a.jsonl.zst", SKIPPABLE * 3, "holds no frame with data"),
]
SOUND = [
    ("a.jsonl", b""),
    ("a.jsonl", b"\n \n"),
    ("a.jsonl.gz", gzip.compress(b"")),
    ("a.jsonl.gz", gzip.compress(b"") + b"\0" * 500),
    ("a.jsonl.zst", zstandard.compress(b"")),
    ("a.jsonl.zst", SKIPPABLE + zstandard.compress(b"")),
    ("a.jsonl.zst", zstandard.compress(b"") + SKIPPABLE),
]
BROKEN = [
    ("a.jsonl.gz", b"\0" * 700 + gzip.compress(ROW)),
    ("a.jsonl.gz", gzip.compress(ROW) + b"x"),
    ("a.jsonl.gz", gzip.compress(ROW) + b"\0\0more"),
    ("a.jsonl.zst", b"\0" * 700),
    ("a.jsonl.zst", b"\0"),
    ("a.jsonl.zst", SKIPPABLE[:-1]),
    ("a.jsonl.zst", zstandard.compress(ROW) + SKIPPABLE[:6]),
    ("a.jsonl.zst", zstandard.compress(ROW) + b"\0"),
]


async def read(folder: Path, name: str, data: bytes, **changes: object) -> list[str]:
    """The ids of two files: the given one, and one with a row."""
    (folder / name).write_bytes(data)
    (folder / "b.jsonl").write_bytes(ROW)
    spec = job(source={"type": "files", "paths": [name, "b.jsonl"], **changes})
    source = FileDocuments(spec, LocalFiles(folder), None, memory_pages())
    frozen = await source.freeze()
    return item_ids([item async for batch in source.read(frozen, None) for item in batch])


@pytest.mark.parametrize(("name", "data", "why"), EMPTY, ids=range(len(EMPTY)))
async def test_a_compressed_file_without_a_stream_fails_the_job(
    tmp_path: Path, name: str, data: bytes, why: str
) -> None:
    with pytest.raises(JobFailed, match=why) as failed:
        await read(tmp_path, name, data)
    assert failed.value.code == "source_invalid"
    assert "source.allow_empty" in str(failed.value.hint)
    assert await read(tmp_path, name, data, allow_empty=True) == ["a"]


@pytest.mark.parametrize(("name", "data"), SOUND, ids=range(len(SOUND)))
async def test_an_empty_text_has_no_rows(tmp_path: Path, name: str, data: bytes) -> None:
    assert await read(tmp_path, name, data) == ["a"]


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(("name", "data"), BROKEN, ids=range(len(BROKEN)))
async def test_a_broken_stream_is_never_an_empty_one(
    tmp_path: Path, name: str, data: bytes, allow: bool
) -> None:
    with pytest.raises(JobFailed, match="cannot be decompressed"):
        await read(tmp_path, name, data, allow_empty=allow)


def outcome(decoder: Decompressor, data: bytes, size: int) -> tuple[bytes, str]:
    """The decompressed bytes and the error of a stream that comes in chunks of a size."""
    found = b""
    try:
        for start in range(0, len(data), size):
            found += b"".join(decoder.feed(data[start : start + size]))
        decoder.finish()
    except Exception as error:  # noqa: BLE001 - errors are compared
        return b"", type(error).__name__
    return found, ""


STREAMS = [(name, data) for name, data, *_ in (*EMPTY, *SOUND, *BROKEN)]


@pytest.mark.parametrize(("name", "data"), STREAMS, ids=range(len(STREAMS)))
def test_how_a_stream_is_cut_decides_nothing(name: str, data: bytes) -> None:
    whole = outcome(decompressor(by_name(name).compression), data, 1 << 20)
    for size in (1, 2, 3, 5, 13):
        assert outcome(decompressor(by_name(name).compression), data, size) == whole
