"""Files of tables: Parquet and Arrow, from any position, whole or refused."""

import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable, StoreUnavailable
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import ObjectInfo
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.files.table_copies import TableCopies
from tests.make import job, memory_pages
from tests.source_items import dead_letter_reasons, documents_of, item_ids
from tests.support.embedded import run_embedded, verify
from tests.tables import (
    ROWS,
    WRITERS,
    fails,
    items,
    one_row,
    source,
    table,
    write_feather,
    write_parquet,
    write_stream,
)


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
