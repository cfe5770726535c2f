"""Compressed files: known by their first bytes whatever their name, and read in bounded memory."""

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest
import zstandard

from shardline.services.local_run import run_warnings
from shardline.services.preview import preview
from shardline.services.wiring.sources import source_factory
from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.memory.store import MemoryStore
from shardline_common.settings.load import Settings
from shardline_producer.sources.files.decoder_memory import LARGEST, SMALL, DecoderMemory
from shardline_producer.sources.files.decompress import decompressor, start_of_text
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.file_format import Compression
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import Frozen, SourceItem
from tests.make import job, memory_pages
from tests.source_items import item_ids
from tests.support.embedded import run_embedded

ROWS = b"".join(b'{"document_id": "d%03d", "content": "text"}\n' % number for number in range(40))
IDS = [f"d{number:03d}" for number in range(40)]
PACKED: dict[Compression, bytes] = {
    "none": ROWS,
    "gzip": gzip.compress(ROWS[:400]) + gzip.compress(ROWS[400:]),
    "zstd": zstandard.compress(ROWS[:400]) + zstandard.compress(ROWS[400:]),
    "xz": lzma.compress(ROWS[:400]) + b"\0" * 8 + lzma.compress(ROWS[400:]),
    "bzip2": bz2.compress(ROWS[:400]) + bz2.compress(ROWS[400:]),
}
NAMES: dict[str, Compression] = {
    "a.jsonl": "none",
    "a": "none",
    "a.jsonl.gz": "gzip",
    "A.JSONL.GZ": "gzip",
    "a.jsonl.zst": "zstd",
    "a.jsonl.xz": "xz",
    "a.jsonl.bz2": "bzip2",
}


def source(folder: Path, name: str, memory: DecoderMemory | None = None, **changes: Any) -> FileDocuments:
    spec = job(source={"type": "files", "paths": [name]}, **changes)
    return FileDocuments(spec, LocalFiles(folder), None, memory_pages(), memory=memory)


async def read(found: FileDocuments, frozen: Frozen) -> list[SourceItem]:
    return [item async for batch in found.read(frozen, None) for item in batch]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compression", PACKED)
async def test_a_compression_is_known_whatever_the_name(
    tmp_path: Path, name: str, compression: Compression
) -> None:
    (tmp_path / name).write_bytes(PACKED[compression])
    found = source(tmp_path, name)
    frozen = await found.freeze()
    assert item_ids(await read(found, frozen)) == IDS
    notes = found.declared(frozen).notes
    assert bool(notes) == (NAMES[name] != compression), notes
    if notes:
        assert notes["misnamed"][0].startswith(f"{name} is "), notes


@pytest.mark.parametrize(
    "later",
    [{"compression": "brotli"}, {"encoding": "utf-128"}, {"records": "toml"}, {"salt": 1}, {"encoding": 8}],
)
async def test_a_format_of_a_later_version_says_so(tmp_path: Path, later: dict[str, Any]) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    found = source(tmp_path, "a.jsonl")
    frozen = [{**file, "format": {"compression": "none"} | later} for file in await found.freeze()]
    with pytest.raises(JobFailed, match=r"a\.jsonl was planned by another version of Shardline"):
        await read(found, frozen)


async def test_the_name_of_a_damaged_file_still_says_what_it_was(tmp_path: Path) -> None:
    for name, damaged in (("a.gz", b"\3\1" + PACKED["gzip"][2:]), ("b.xz", b"no" + PACKED["xz"])):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(JobFailed, match=f"{name} cannot be decompressed: it begins with the bytes"):
            await read(found := source(tmp_path, name), await found.freeze())


async def test_a_run_says_what_is_named_otherwise_and_what_was_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(PACKED["bzip2"] + b"x" * 1234)
    view = await run_embedded(
        job(source={"type": "files", "paths": ["a.jsonl.gz"]}), store := MemoryStore(), tmp_path
    )
    assert run_warnings(view.state)[:2] == [
        "a.jsonl.gz is compressed by bzip2, other than its name says",
        "1,234 bytes behind the end of the compressed data of a.jsonl.gz were not read",
    ]
    cards = [info.key async for info in store.list("") if info.key.endswith("README.md")]
    assert b"1,234 bytes behind the end" in await store.get(cards[0])


async def test_preview_says_once_what_is_named_otherwise(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(ROWS)
    opened = source_factory(Settings(), tmp_path, confined=True, remote=None)
    found = await preview(
        job(source={"type": "files", "paths": ["a.jsonl.gz"]}), opened, documents=9, seconds=60
    )
    said = [one for one in found.warnings if one.startswith("a.jsonl.gz")]
    assert said == ["a.jsonl.gz is not compressed, other than its name says"]


@pytest.mark.parametrize(
    ("compression", "bomb"),
    [("xz", lzma.compress), ("bzip2", bz2.compress), ("gzip", gzip.compress), ("zstd", zstandard.compress)],
)
def test_no_piece_of_a_bomb_is_large(compression: Compression, bomb: Any) -> None:
    packed, total = bomb(bytes(24 << 20)), 0
    stream = decompressor(compression)
    for piece in stream.feed(packed):
        assert len(piece) <= 66 << 20
        total += len(piece)
    stream.finish()
    assert total == 24 << 20
    assert len(start_of_text(compression, packed)) == 1 << 20


def long_zstd(bits: int) -> bytes:
    """The rows with a window of so many bits."""
    parameters = zstandard.ZstdCompressionParameters(window_log=bits, strategy=1, hash_log=6, chain_log=6)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(ROWS) + packer.flush()


def long_xz(bits: int) -> bytes:
    """The rows with a dictionary of so many bits."""
    chain = {"id": lzma.FILTER_LZMA2, "dict_size": 1 << bits, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}
    return lzma.compress(ROWS, filters=[chain])


@pytest.mark.parametrize("packed", [long_zstd(31), long_zstd(28), long_xz(30), long_xz(28)], ids=range(4))
async def test_a_large_window_is_read_within_the_limit(tmp_path: Path, packed: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(packed)
    memory = DecoderMemory()
    found = source(tmp_path, "a.jsonl", memory)
    assert item_ids(await read(found, await found.freeze())) == IDS
    memory.reserve(LARGEST)


@pytest.mark.parametrize("packed", [long_zstd(28), long_xz(28)], ids=["zstd", "xz"])
async def test_a_window_over_the_limit_names_the_setting(tmp_path: Path, packed: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(packed)
    found = source(tmp_path, "a.jsonl", DecoderMemory((1 << 28) - 1))
    with pytest.raises(JobFailed, match="needs a window of 268,435,456 bytes, and 268,435,455") as failed:
        await read(found, await found.freeze())
    assert failed.value.code == "source_invalid"
    assert "set SHARDLINE_MAX_WINDOW_BYTES to 268435456" in str(failed.value.hint)


async def test_the_windows_of_all_files_share_one_limit(tmp_path: Path) -> None:
    """Four jobs at once must not need four times the memory: the later one is tried again."""
    (tmp_path / "a.jsonl").write_bytes(long_zstd(31))
    (tmp_path / "b.jsonl").write_bytes(PACKED["zstd"])
    memory = DecoderMemory()
    memory.reserve(SMALL + 1)
    found, small = source(tmp_path, "a.jsonl", memory), source(tmp_path, "b.jsonl", memory)
    frozen = await found.freeze()
    assert item_ids(await read(small, await small.freeze())) == IDS
    with pytest.raises(SourceUnavailable, match="waits for memory") as waits:
        await read(found, frozen)
    assert "SHARDLINE_MAX_WINDOW_BYTES" in str(waits.value.hint)
    memory.release(SMALL + 1)
    assert item_ids(await read(found, frozen)) == IDS


async def test_a_frame_whose_size_is_known_needs_no_window(tmp_path: Path) -> None:
    """A frame with a window of 2 GiB and the size of its data, which are one stored block."""
    header = b"\x28\xb5\x2f\xfd\x80\xa8" + len(ROWS).to_bytes(4, "little")
    packed = header + (len(ROWS) << 3 | 1).to_bytes(3, "little") + ROWS
    assert zstandard.get_frame_parameters(packed).window_size == LARGEST
    (tmp_path / "a.jsonl").write_bytes(packed)
    found = source(tmp_path, "a.jsonl", DecoderMemory(SMALL))
    assert item_ids(await read(found, await found.freeze())) == IDS


async def test_a_frame_with_a_dictionary_says_how_to_decompress_it(tmp_path: Path) -> None:
    words = zstandard.train_dictionary(
        2048, [b'{"document_id": "d%d", "content": "wort %d"}' % (n, n * 7) for n in range(2000)]
    )
    packed = zstandard.ZstdCompressor(dict_data=words).compress(ROWS)
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    found = source(tmp_path, "a.jsonl.zst")
    with pytest.raises(JobFailed, match=f"with the dictionary {words.dict_id()}") as failed:
        await read(found, await found.freeze())
    assert "zstd -d -D" in str(failed.value.hint)
