"""Tables that are damaged, cut, encrypted or of another form, and the copies that they are read from."""

import errno
import gzip
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_producer.sources.files.table_copies import TableCopies
from tests.source_items import item_ids
from tests.tables import (
    DAMAGED,
    WRITERS,
    fails,
    items,
    one_row,
    source,
    table,
    write_stream,
)


@pytest.mark.parametrize(
    "name", ["snappy.parquet", "zstd.parquet", "zstd.arrow", "plain.arrow", "stream.arrows"]
)
async def test_a_file_that_was_cut_is_damaged_and_never_short(tmp_path: Path, name: str) -> None:
    WRITERS[name](table(), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for size in [
        *range(16, 64, 8),
        len(data) // 3,
        len(data) // 2,
        len(data) - 9,
        len(data) - 8,
        len(data) - 1,
    ]:
        (tmp_path / "cut").write_bytes(data[:size])
        failed = await fails(source(tmp_path, "cut"))
        assert "cut is damaged: " in str(failed), size


async def test_a_stream_that_was_cut_between_two_batches_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.arrows"
    rows = table()
    with pa.OSFile(str(path), "wb") as file:
        writer = pa.ipc.new_stream(file, rows.schema)
        writer.write_table(rows, max_chunksize=300)
        end = file.tell()
        writer.close()
    path.write_bytes(path.read_bytes()[:end])
    failed = await fails(source(tmp_path, "a.arrows"))
    assert str(failed) == "a.arrows is damaged: it ends after 700 rows without the marker of its end"


async def test_a_page_with_a_wrong_checksum_fails(tmp_path: Path) -> None:
    pa.parquet.write_table(
        table(), tmp_path / "a", compression="none", use_dictionary=False, write_page_checksum=True
    )
    data = bytearray((tmp_path / "a").read_bytes())
    at = data.index(b"Text 500")
    data[at : at + 4] = b"text"
    (tmp_path / "a").write_bytes(data)
    assert "CRC" in str(await fails(source(tmp_path, "a")))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*DAMAGED, "gzip.parquet", "lz4.parquet"]), st.data())
async def test_damaged_bytes_never_end_the_process(tmp_path: Path, name: str, data: st.DataObject) -> None:
    path = tmp_path / name
    if not path.exists():
        WRITERS[name](table(50), path)
    whole = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(8, len(whole) - 1), min_size=1, max_size=4)):
        whole[at] = data.draw(st.sampled_from([0, 1, 127, 128, 255, whole[at] ^ 1]))
    (tmp_path / "damaged").write_bytes(whole)
    failed: JobFailed | None = None
    try:
        await items(source(tmp_path, "damaged"))
    except JobFailed as error:
        failed = error
    assert failed is None or failed.code is FailureCode.SOURCE_INVALID


async def test_wrong_offsets_inside_of_an_arrow_file_are_damage(tmp_path: Path) -> None:
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 1_000_000_000, 4))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"text")]
    wrong = pa.Array.from_buffers(pa.string(), 2, buffers)
    rows = pa.table({"document_id": ["a", "b"], "content": ["1", "2"], "note": wrong})
    write_stream(rows, tmp_path / "a")
    assert "a is damaged: " in str(await fails(source(tmp_path, "a")))


async def test_invalid_text_of_an_arrow_file_is_one_dead_letter(tmp_path: Path) -> None:
    broken = pa.array([b"ok", b"\xff", b"ok"], pa.binary()).view(pa.string())
    rows = pa.table(
        {
            "document_id": ["a", "b", "c"],
            "content": ["1", "2", "3"],
            "law": pa.StructArray.from_arrays([pa.ListArray.from_arrays([0, 1, 2, 3], broken)], ["names"]),
        }
    )
    write_stream(rows, tmp_path / "a")
    assert item_ids(await items(source(tmp_path, "a"))) == ["a", "a:2", "c"]


@pytest.mark.parametrize(
    ("data", "says", "hint"),
    [
        (b"FEA1" + bytes(100), "Feather file of version 1", "write_feather"),
        (b"PARE" + bytes(100), "encrypted Parquet", "without encryption"),
        (gzip.compress(b"PAR1" + bytes(100), mtime=0), "compressed once more by gzip", "gunzip -k 'a'"),
        (zstandard.compress(b"ARROW1\0\0" + bytes(100)), "compressed once more by zstd", "zstd -d 'a'"),
    ],
    ids=["feather 1", "encrypted", "gzip", "zstd"],
)
async def test_files_that_cannot_be_read_are_refused_with_a_command(
    tmp_path: Path, data: bytes, says: str, hint: str
) -> None:
    (tmp_path / "a").write_bytes(data)
    failed = await fails(source(tmp_path, "a"))
    assert says in str(failed)
    assert failed.hint is not None
    assert hint in failed.hint


async def test_encrypted_columns_are_named(tmp_path: Path) -> None:
    import pyarrow.parquet.encryption as pe

    class Plain(pe.KmsClient):  # type: ignore[misc]
        def wrap_key(self, key_bytes: bytes, _: str) -> bytes:
            return key_bytes.hex().encode()

    config = pe.EncryptionConfiguration(footer_key="f", column_keys={"c": ["content"]}, plaintext_footer=True)
    keys = pe.CryptoFactory(lambda _: Plain()).file_encryption_properties(pe.KmsConnectionConfig(), config)
    pa.parquet.write_table(one_row(), tmp_path / "a", encryption_properties=keys)
    assert str(await fails(source(tmp_path, "a"))) == "a is an encrypted Parquet file"


async def test_without_pyarrow_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa.parquet.write_table(table(), tmp_path / "a")
    monkeypatch.setattr("shardline_producer.sources.files.table_formats.find_spec", lambda _: None)
    failed = await fails(source(tmp_path, "a"))
    assert str(failed) == (
        "a is a file of Parquet, and the package pyarrow, which reads it, is not installed"
    )
    assert failed.hint == "pip install 'shardline[parquet]'"


async def test_types_that_are_not_read_name_their_column(tmp_path: Path) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    write_stream(one_row(odd=union), tmp_path / "a")
    failed = await fails(source(tmp_path, "a"))
    assert str(failed).startswith("the column 'odd' of a has a type that is not read: sparse_union<")


async def test_copies_have_no_name_and_leave_nothing(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    pa.parquet.write_table(table(), tmp_path / "a", row_group_size=10)
    found = source(tmp_path, "a", copies=TableCopies(spool))
    reading = found.read(await found.freeze(), None)
    await anext(reading)
    assert list(spool.iterdir()) == []
    before = len(list(Path("/proc/self/fd").iterdir()))
    await reading.aclose()
    assert len(list(Path("/proc/self/fd").iterdir())) < before


async def test_a_copy_that_does_not_fit_waits_for_space(tmp_path: Path) -> None:
    pa.parquet.write_table(table(), tmp_path / "a")
    found = source(tmp_path, "a", copies=TableCopies(tmp_path, reserve=1 << 60))
    with pytest.raises(SourceUnavailable) as failed:
        await items(found)
    assert "is copied before it is read, and the disk of" in str(failed.value)
    assert "SHARDLINE_SPOOL_RESERVE_BYTES" in str(failed.value.hint)


async def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None:
            pass

    async def stream() -> AsyncGenerator[bytes, None]:
        yield b"data"

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(SourceUnavailable, match="No space left on device"):
        async with TableCopies(tmp_path).copy("a", 4, stream()):
            pass


async def test_other_bytes_under_the_same_time_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    pa.parquet.write_table(table(), path)
    found = source(tmp_path, "a")
    frozen = await found.freeze()
    first = [item async for batch in found.read(frozen, None) for item in batch]
    data, status = bytearray(path.read_bytes()), path.stat()
    data[100] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(JobFailed) as failed:
        [item async for batch in found.read(frozen, first[3].position) for item in batch]
    assert failed.value.code is FailureCode.SOURCE_CHANGED


def test_pyarrow_is_imported_only_when_a_table_is_read() -> None:
    program = "import sys, shardline.services.wiring.sources as _; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
