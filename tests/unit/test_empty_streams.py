"""Compressed files that hold nothing: an upload that was cut to 0 bytes is not a file without rows."""

import bz2
import gzip
import lzma
import struct
from pathlib import Path

import pytest
import zstandard

from shardline_common.errors import JobFailed
from shardline_producer.sources.files.decompress import Decompressor, decompressor, named_compression
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
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
    ("a.jsonl.zst", b"\0" * 700, "holds 700 zero bytes"),
    ("a.jsonl.zst", b"\0", "holds 1 zero bytes"),
    ("a.jsonl.xz", b"", "a.jsonl.xz has 0 bytes"),
    ("a.jsonl.bz2", b"\0" * 9, "holds 9 zero bytes"),
]
SOUND = [
    ("a.jsonl", b""),
    ("a.jsonl", b"\n \n"),
    ("a.jsonl.gz", gzip.compress(b"")),
    ("a.jsonl.gz", gzip.compress(b"") + b"\0" * 500),
    ("a.jsonl.zst", zstandard.compress(b"")),
    ("a.jsonl.zst", SKIPPABLE + zstandard.compress(b"")),
    ("a.jsonl.zst", zstandard.compress(b"") + SKIPPABLE),
    ("a.jsonl.xz", lzma.compress(b"")),
    ("a.jsonl.xz", lzma.compress(b"") + b"\0" * 8 + lzma.compress(b"\n")),
    ("a.jsonl.bz2", bz2.compress(b"")),
]
BROKEN = [
    ("a.jsonl.gz", b"\0" * 700 + gzip.compress(ROW)),
    ("a.jsonl.zst", b"\0" * 700 + zstandard.compress(ROW)),
    ("a.jsonl.gz", gzip.compress(ROW) + gzip.compress(ROW)[:1]),
    ("a.jsonl.gz", gzip.compress(ROW) + gzip.compress(ROW)[:2]),
    ("a.jsonl.gz", gzip.compress(ROW) + gzip.compress(ROW)[:-1]),
    ("a.jsonl.gz", gzip.compress(ROW) + b"lost" + gzip.compress(ROW)),
    ("a.jsonl.zst", SKIPPABLE[:-1]),
    # A window of more than the library's most, and a reserved bit.
    ("a.jsonl.zst", b"\x28\xb5\x2f\xfd\x00\xff" + ROW),
    ("a.jsonl.zst", b"\x28\xb5\x2f\xfd\x08\x08" + ROW),
    ("a.jsonl.zst", zstandard.compress(ROW) + SKIPPABLE[:6]),
    ("a.jsonl.zst", zstandard.compress(ROW) + zstandard.compress(ROW)[:3]),
    ("a.jsonl.zst", zstandard.compress(ROW) + zstandard.compress(ROW)[:-1]),
    ("a.jsonl.zst", zstandard.compress(ROW) + b"lost" + zstandard.compress(ROW)),
    ("a.jsonl.xz", lzma.compress(ROW)[:20]),
    # A header of a block that names a filter behind its own end.
    ("a.jsonl.xz", bytes.fromhex("fd377a585a000004e6d6b4460200219bb7cdf8b3ba9fe67c363ce288")),
    # The first bytes of a member cannot be told from garbage: the file may be cut off there.
    ("a.jsonl.xz", lzma.compress(ROW) + b"\xfd7z"),
    ("a.jsonl.xz", lzma.compress(ROW) + lzma.compress(ROW)[:-1]),
    ("a.jsonl.xz", lzma.compress(ROW) + b"lost" + lzma.compress(ROW)),
    ("a.jsonl.bz2", bz2.compress(ROW)[:-1]),
    ("a.jsonl.bz2", bz2.compress(ROW) + bz2.compress(ROW)[:12]),
    ("a.jsonl.bz2", bz2.compress(ROW) + b"lost" + bz2.compress(ROW)),
]
# A whole stream, with what is no part of it, and how many bytes these are.
WITH_GARBAGE = [
    ("a.jsonl.gz", gzip.compress(ROW) + b"x", 1),
    ("a.jsonl.gz", gzip.compress(ROW) + b"\0\0more", 4),
    ("a.jsonl.gz", gzip.compress(ROW[:9]) + gzip.compress(ROW[9:]) + b"\nmore\0" * 99, 594),
    ("a.jsonl.zst", zstandard.compress(ROW) + b"\0", 0),
    ("a.jsonl.zst", zstandard.compress(ROW) + b"\0" * 5 + SKIPPABLE, 0),
    ("a.jsonl.zst", zstandard.compress(ROW) + b"\x28more", 5),
    ("a.jsonl.xz", lzma.compress(ROW) + b"\0" * 7, 0),
    ("a.jsonl.xz", lzma.compress(ROW) + b"\0\0\0\0more", 4),
    ("a.jsonl.bz2", bz2.compress(ROW) + b"\0" * 7, 0),
    ("a.jsonl.bz2", bz2.compress(ROW) + b"BZhello", 7),
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


@pytest.mark.parametrize(("name", "data", "ignored"), WITH_GARBAGE, ids=range(len(WITH_GARBAGE)))
async def test_what_comes_behind_a_whole_stream_is_counted(
    tmp_path: Path, name: str, data: bytes, ignored: int
) -> None:
    """Garbage takes no rows; a job that continues behind the file still says that there is some."""
    (tmp_path / name).write_bytes(data)
    (tmp_path / "b.jsonl").write_bytes(ROW)
    pages, spec = memory_pages(), job(source={"type": "files", "paths": [name, "b.jsonl"]})
    source = FileDocuments(spec, LocalFiles(tmp_path), None, pages)
    frozen = await source.freeze()
    items = [item async for batch in source.read(frozen, None) for item in batch]
    assert item_ids(items) == ["a", "a"]
    wanted = {"files": 1, "bytes": ignored, "first": name} if ignored else {}
    assert source.findings(frozen).ignored == wanted
    for after in items:
        again = FileDocuments(spec, LocalFiles(tmp_path), None, pages)
        rest = [item async for batch in again.read(frozen, after.position) for item in batch]
        assert [item.position for item in rest] == [item.position for item in items[items.index(after) + 1 :]]
        assert again.findings(frozen) == source.findings(frozen)


def outcome(decoder: Decompressor, data: bytes, size: int) -> tuple[bytes, str, int]:
    """The decompressed bytes, the error and the ignored bytes of a stream that comes in chunks of a size."""
    found = b""
    try:
        for start in range(0, len(data), size):
            found += b"".join(decoder.feed(data[start : start + size]))
        decoder.finish()
    except Exception as error:  # noqa: BLE001 - errors are compared
        return b"", type(error).__name__, 0
    return found, "", decoder.ignored


STREAMS = [(name, data) for name, data, *_ in (*EMPTY, *SOUND, *BROKEN, *WITH_GARBAGE)]


@pytest.mark.parametrize(("name", "data"), STREAMS, ids=range(len(STREAMS)))
def test_how_a_stream_is_cut_decides_nothing(name: str, data: bytes) -> None:
    whole = outcome(decompressor(named_compression(name)), data, 1 << 20)
    for size in (1, 2, 3, 5, 13):
        assert outcome(decompressor(named_compression(name)), data, size) == whole
