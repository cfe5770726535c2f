"""Files of tables: Parquet and Arrow, from any position, whole or refused."""

import errno
import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable, StoreUnavailable
from shardline_common.job.messages import Position
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import ObjectInfo
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.files.table_copies import TableCopies
from shardline_producer.sources.source import SourceItem
from tests.make import job, memory_pages
from tests.source_items import dead_letter_reasons, documents_of, item_ids
from tests.support.embedded import run_embedded, verify

ROWS = 700
DAMAGED = ["snappy.parquet", "zstd.parquet", "zstd.arrow", "plain.arrow", "stream.arrows"]
Write = Callable[[pa.Table, Path], None]


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)


def write_polars(table: pa.Table, path: Path) -> None:
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    if path.suffix == ".parquet":
        frame.write_parquet(path, row_group_size=300)
    else:
        frame.write_ipc(path)


def write_duckdb(table: pa.Table, path: Path) -> None:
    import duckdb

    duckdb.from_arrow(table).write_parquet(str(path), row_group_size=300)


def write_parquet(**options: Any) -> Write:
    return lambda table, path: pa.parquet.write_table(table, path, row_group_size=300, **options)


def write_feather(**options: Any) -> Write:
    return lambda table, path: pa.feather.write_feather(table, str(path), **options)


WRITERS: dict[str, Write] = {
    "snappy.parquet": write_parquet(),
    "gzip.parquet": write_parquet(compression="gzip", data_page_version="2.0", data_page_size=1000),
    "zstd.parquet": write_parquet(compression="zstd", use_dictionary=False, write_page_checksum=True),
    "brotli.parquet": write_parquet(compression="brotli", store_schema=False),
    "lz4.parquet": write_parquet(compression="lz4", version="1.0"),
    "none.parquet": write_parquet(compression="none", use_byte_stream_split=["number"], use_dictionary=False),
    "polars.parquet": write_polars,
    "duckdb.parquet": write_duckdb,
    "a.feather": write_feather(),
    "zstd.arrow": write_feather(compression="zstd", chunksize=300),
    "plain.arrow": write_feather(compression="uncompressed", chunksize=300),
    "polars.arrow": write_polars,
    "stream.arrows": write_stream,
}


def table(rows: int = ROWS) -> pa.Table:
    return pa.table(
        {
            "document_id": [f"d{number}" for number in range(rows)],
            "content": [f"Text {number} ä" for number in range(rows)],
            "score": [number / rows for number in range(rows)],
            "number": [number * 1.5 for number in range(rows)],
            "count": pa.array([None if number % 7 else number for number in range(rows)], pa.int64()),
            "tags": [["a", f"b{number}"][: number % 3] for number in range(rows)],
            "law": [{"name": "BauO", "year": number} for number in range(rows)],
        }
    )


def one_row(**columns: pa.Array) -> pa.Table:
    return pa.table({"document_id": ["d0"], "content": ["text"], **columns})


def source(
    folder: Path,
    *names: str,
    copies: TableCopies | None = None,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> FileDocuments:
    spec = job(source={"type": "files", "paths": list(names), **(options or {})}, **changes)
    return FileDocuments(spec, LocalFiles(folder), None, memory_pages(), copies)


async def items(found: FileDocuments, after: Position | None = None) -> list[SourceItem]:
    frozen = await found.freeze()
    return [item async for batch in found.read(frozen, after) for item in batch]


async def fails(found: FileDocuments) -> JobFailed:
    with pytest.raises(JobFailed) as failed:
        await items(found)
    assert failed.value.code is FailureCode.SOURCE_INVALID
    return failed.value


@pytest.mark.parametrize("name", WRITERS)
async def test_tables_are_read_from_every_position(tmp_path: Path, name: str) -> None:
    rows = table()
    WRITERS[name](rows, tmp_path / "data")  # The name says nothing.
    shutil.copy(tmp_path / "data", tmp_path / "laws.jsonl.gz")
    found = source(tmp_path, "laws.jsonl.gz")
    everything = await items(found)
    expected = rows.to_pylist()
    for row, document in zip(expected, documents_of(everything), strict=True):
        assert (document.id, document.text) == (row.pop("document_id"), row.pop("content"))
        assert document.relevance == row.pop("score")
        assert document.metadata == row
    assert [item.position[1] for item in everything] == list(range(1, ROWS + 1))
    assert [item.position[-1] for item in everything] == list(range(1, ROWS + 1))
    assert [item.position for item in everything] == sorted(item.position for item in everything)
    for number in (0, 1, 254, 255, 256, 298, 299, 300, 511, 512, 555, 598, 599, 600, ROWS - 2, ROWS - 1):
        assert await items(found, everything[number].position) == everything[number + 1 :]
    frozen = await found.freeze()
    shares = [found.progress(frozen, item.position) for item in everything]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.6
    assert shares[-1] > 0.95


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(st.none(), st.text(max_size=5), st.integers(0, 3).map(lambda n: "x" * 200 * n)), max_size=12
    ),
    st.integers(1, 5),
    st.sampled_from(["parquet", "arrow", "arrow_stream"]),
)
async def test_any_rows_resume_at_each_position(
    tmp_path: Path, texts: list[str | None], group: int, form: str
) -> None:
    rows = pa.table(
        {"document_id": [f"d{n}" for n in range(len(texts))], "content": pa.array(texts, pa.string())}
    )
    path = tmp_path / "rows"
    if form == "parquet":
        pa.parquet.write_table(rows, path, row_group_size=group, data_page_size=1)
    elif form == "arrow":
        pa.feather.write_feather(rows, str(path), chunksize=group)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=group)
    found = source(tmp_path, "rows", max_document_bytes=1024)
    everything = await items(found)
    assert len(everything) == len(texts)
    for item, text in zip(everything, texts, strict=True):
        assert [document.text for document in documents_of([item])] == ([] if text is None else [text])
    for number, item in enumerate(everything):
        assert await items(found, item.position) == everything[number + 1 :]


async def test_rows_that_are_no_documents_are_dead_letters_with_their_json(tmp_path: Path) -> None:
    broken = pa.array([b"\xff\xfe", *[b"ok"] * 5], pa.binary()).view(pa.string())
    rows = pa.table(
        {
            "document_id": pa.array([1, 2, None, 4, 5, 6]),
            "content": pa.array([b"a", b"\xff", b"c", None, b"e" * 2000, "ä".encode()]),
            "note": broken,
        }
    )
    pa.parquet.write_table(rows, tmp_path / "a.parquet")
    found = await items(source(tmp_path, "a.parquet", max_document_bytes=1024))
    assert item_ids(found) == [*(f"a.parquet:{number}" for number in range(1, 6)), "6"]
    assert list(dead_letter_reasons(found).values()) == [
        "invalid_utf8",
        "content_not_text",
        "missing_id",
        "no_content",
        "too_large",
    ]
    assert documents_of(found)[0].text == "ä"
    letters = [item.content.dead_letter for item in found[:5]]  # type: ignore[union-attr]
    assert letters[0].original == b'{"document_id":1,"content":"a","note":"\\\\xff\\\\xfe"}'
    assert orjson.loads(letters[1].original)["content"] == "/w=="
    assert letters[4].size == len(b'{"document_id":5,"content":"","note":"ok"}') + 2000


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.float16()], ids=str)
@pytest.mark.parametrize("text", ["x", "{{x}}!", "/s/x"])
async def test_a_missing_number_of_pandas_is_no_text(tmp_path: Path, kind: pa.DataType, text: str) -> None:
    missing = pa.array([float("nan"), float("inf")], kind)
    rows = pa.table({"id": ["a", "b"], "x": missing, "s": pa.StructArray.from_arrays([missing], ["x"])})
    pa.parquet.write_table(rows, tmp_path / "a.parquet")
    fields = {"fields": {"id": "id", "text": text}}
    found = await items(source(tmp_path, "a.parquet", options=fields))
    assert set(dead_letter_reasons(found).values()) == {"content_not_text"}
    fields = {"fields": {"id": "x", "text": "id"}}
    found = await items(source(tmp_path, "a.parquet", options=fields))
    assert set(dead_letter_reasons(found).values()) == {"bad_id"}


async def test_a_missing_number_of_pandas_is_text_in_metadata(tmp_path: Path) -> None:
    nan = pa.array([float("nan")])
    of_map = pa.MapArray.from_arrays([0, 1], nan, nan)
    rows = one_row(n=nan, s=pa.StructArray.from_arrays([nan], ["x"]), m=of_map)
    pa.parquet.write_table(rows, tmp_path / "a.parquet")
    (document,) = documents_of(await items(source(tmp_path, "a.parquet")))
    assert document.metadata == {"n": "NaN", "s": {"x": "NaN"}, "m": {"NaN": "NaN"}}
    assert type(document.metadata["n"]) is type(document.metadata["s"]["x"]) is str
    assert {type(name) for name in document.metadata["m"]} == {str}


async def test_the_fields_of_rows_are_mapped(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "uid": [7, 8],
            "body": [{"title": "A", "text": "a"}, {"title": None, "text": "b"}],
            "raw": [b"\xff", b"x"],
        }
    )
    pa.parquet.write_table(rows, tmp_path / "a.parquet")
    fields = {"id": "uid", "text": "{{/body/title}}: {{/body/text}}"}
    read = await items(source(tmp_path, "a.parquet", options={"fields": fields}))
    assert documents_of(read)[0].text == "A: a"
    assert documents_of(read)[0].metadata["raw"] == "/w=="
    assert dead_letter_reasons(read) == {"a.parquet:2": "missing_field"}
    numbered = await items(
        source(tmp_path, "a.parquet", options={"fields": {"id": "line", "text": "/body/text"}})
    )
    assert item_ids(numbered) == ["a.parquet:1", "a.parquet:2"]


async def test_the_form_that_the_job_names_is_checked(tmp_path: Path) -> None:
    pa.parquet.write_table(table(3), tmp_path / "a")
    write_stream(table(3), tmp_path / "b")
    (tmp_path / "c").write_bytes(b"{}")
    assert len(await items(source(tmp_path, "a", options={"format": "parquet"}))) == 3
    assert len(await items(source(tmp_path, "b", options={"format": "arrow"}))) == 3
    failed = await fails(source(tmp_path, "a", options={"format": "jsonl"}))
    assert str(failed) == "a is a file of Parquet, and source.format says jsonl"
    failed = await fails(source(tmp_path, "c", options={"format": "arrow"}))
    assert str(failed) == "c is no file of Arrow: it does not begin like one"


async def test_filters_and_top_k_count_rows(tmp_path: Path) -> None:
    pa.parquet.write_table(table(), tmp_path / "a.parquet", row_group_size=100)
    query = {"text": None, "top_k": 3, "filters": {"number": {"gte": 450}}}
    found = source(tmp_path, "a.parquet", query=query)
    read = await items(found)
    assert item_ids(read) == ["d300", "d301", "d302"]
    assert [item.position[1:] for item in read] == [
        (301, read[0].position[2], 1),
        (302, read[1].position[2], 2),
        (303, read[2].position[2], 3),
    ]
    assert item_ids(await items(found, read[0].position)) == ["d301", "d302"]


async def test_a_sample_of_parquet_needs_no_copy(tmp_path: Path) -> None:
    pa.parquet.write_table(table(), tmp_path / "a", row_group_size=300)
    read = await items(source(tmp_path, "a"))
    found = source(tmp_path, "a", copies=TableCopies(tmp_path / "missing"))
    frozen = await found.freeze()
    assert [item async for batch in found.sample(frozen) for item in batch] == read
    (tmp_path / "a").write_bytes(b"PAR1")
    with pytest.raises(JobFailed) as failed:
        await anext(found.sample(frozen))
    assert failed.value.code is FailureCode.SOURCE_CHANGED


class Bucket:
    """A bucket with one object, whose body may be cut."""

    def __init__(self, body: bytes, cut: int | None = None) -> None:
        self._body, self._cut = body, cut

    async def list_bucket(self, _: str, __: str) -> AsyncGenerator[ObjectInfo, None]:
        yield ObjectInfo("in/a", len(self._body), '"1"')

    async def stream_object(
        self, bucket: str, key: str, *, offset: int, etag: str, size: int
    ) -> AsyncGenerator[bytes, None]:
        assert (bucket, key, etag, size) == ("b", "in/a", '"1"', len(self._body))
        for at in range(offset, self._cut or len(self._body), 1000):
            yield self._body[at : min(at + 1000, self._cut or size)]
        if self._cut:
            raise StoreUnavailable("cut")


async def test_objects_are_read_like_files(tmp_path: Path) -> None:
    pa.parquet.write_table(table(), tmp_path / "a", row_group_size=300)
    body = (tmp_path / "a").read_bytes()
    local = await items(source(tmp_path, "a"))

    def of_bucket(cut: int | None) -> FileDocuments:
        spec = job(source={"type": "files", "paths": ["s3://b/in/*"]})
        return FileDocuments(spec, LocalFiles(tmp_path), S3Files(Bucket(body, cut)), memory_pages())

    found = of_bucket(None)
    everything = await items(found)
    assert [item.content for item in everything] == [item.content for item in local]
    assert await items(found, everything[400].position) == everything[401:]
    frozen = await found.freeze()
    with pytest.raises(SourceUnavailable, match="cut"):
        _ = [batch async for batch in of_bucket(5000).read(frozen, None)]


async def test_a_dataset_of_a_table_is_that_of_its_lines(tmp_path: Path) -> None:
    rows = table()
    pa.parquet.write_table(rows, tmp_path / "a.parquet", row_group_size=300)
    lines = [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows.to_pylist()]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    digests = []
    for name in ("a.parquet", "a.jsonl"):
        spec, store = job(source={"type": "files", "paths": [name]}, quality={"min_score": 0}), MemoryStore()
        assert (await run_embedded(spec, store, tmp_path)).state.state == "completed"
        digests.append((await verify(spec, store)).digest)
    assert digests[0] == digests[1]


async def test_sampling_reads_tables_too(tmp_path: Path) -> None:
    pa.feather.write_feather(table(), str(tmp_path / "a"))
    found = source(tmp_path, "a", query={"text": None, "filters": {"number": 3}})
    sampled = [item async for batch in found.sample(await found.freeze()) for item in batch]
    assert len(sampled) == ROWS


async def test_columns_of_one_name_are_all_read(tmp_path: Path) -> None:
    rows = pa.Table.from_arrays(
        [pa.array(["d"]), pa.array(["t"]), pa.array([1]), pa.array([2]), pa.array([3]), pa.array([4])],
        ["document_id", "content", "a.b", "a.b", "A.B", ""],
    )
    for name, write in {"a": write_parquet(), "b": write_stream}.items():
        write(rows, tmp_path / name)
        [document] = documents_of(await items(source(tmp_path, name)))
        assert document.metadata == {"a.b": 1, "a.b_2": 2, "A.B": 3, "": 4}


async def test_old_moments_do_not_wrap_around(tmp_path: Path) -> None:
    moments = pa.array([-(10**16)], pa.timestamp("us"))
    pa.parquet.write_table(one_row(at=moments), tmp_path / "a", use_deprecated_int96_timestamps=True)
    pa.parquet.write_table(
        one_row(at=pa.array([10**9], pa.timestamp("ns"))),
        tmp_path / "b",
        use_deprecated_int96_timestamps=True,
    )
    read = documents_of(await items(source(tmp_path, "a", "b")))
    assert [document.metadata["at"] for document in read] == ["1653-02-10T06:13:20", "1970-01-01T00:00:01"]


async def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.feather", "stream.arrows"):
        {"a.parquet": write_parquet(), "b.feather": write_feather(), "stream.arrows": write_stream}[name](
            table(0), tmp_path / name
        )
    assert await items(source(tmp_path, "a.parquet", "b.feather", "stream.arrows")) == []


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
