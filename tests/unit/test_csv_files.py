"""CSV and TSV: rows cut byte by byte, the dialect found at planning, and what is no row a dead letter."""

import csv
import io
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardline_common.errors import JobFailed
from shardline_producer.sources.files.csv_records import CsvSplitter, Dialect
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.lines import BrokenText, Line
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem
from tests.make import job, memory_pages
from tests.source_items import item_ids
from tests.unit.test_files_source import items, source, write

CELLS = st.text(st.sampled_from(["a", " ", ",", ";", "\t", '"', "'", "\n", "\r", "\\", "é", "N"]), max_size=6)
TABLES = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=5)
)
DIALECTS = [
    Dialect(delimiter, quote, escape, skip=0)
    for delimiter in (",", ";", "\t", "|")
    for quote in ('"', "'")
    for escape in (False, True)
]


def split(
    data: bytes, dialect: Dialect, size: int, number: int = 0, offset: int = 0, limit: int = 1 << 20
) -> list[Line]:
    splitter = CsvSplitter(limit, number, offset, dialect)
    found: list[Line] = []
    for start in range(offset, len(data), size):
        found += splitter.feed(data[start : start + size])
    return found + list(splitter.finish())


def written(rows: Sequence[Sequence[str]], dialect: Dialect, line_end: str, quoting: Any) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(
        out,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        doublequote=not dialect.escape,
        escapechar="\\" if dialect.escape else None,
        lineterminator=line_end,
        quoting=quoting,
    ).writerows(rows)
    return out.getvalue().encode()


@given(
    TABLES,
    st.sampled_from(DIALECTS),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.integers(1, 7),
    st.booleans(),
)
def test_rows_are_those_that_were_written(
    rows: list[list[str]], dialect: Dialect, line_end: str, quoting: int, size: int, bom: bool
) -> None:
    # The writer of the standard library leaves a lone carriage return without quotes.
    rows = [[cell if quoting == csv.QUOTE_ALL else cell.replace("\r", "") for cell in row] for row in rows]
    data = b"\xef\xbb\xbf" * bom + written(rows, dialect, line_end, quoting)
    found = split(data, dialect, len(data) + 1)
    cells = [dialect.cells(record.text.decode()) for record in found]
    # A line of white space is no row.
    blank = " " if dialect.delimiter == "\t" else " \t"
    quoted = quoting == csv.QUOTE_ALL
    kept = [row for row in rows if quoted or len(row) > 1 or row[0].strip(blank) or row == [""]]
    assert [[cell or "" for cell in row] for row in cells] == kept
    assert split(data, dialect, size) == found
    for done, record in enumerate(found, start=1):
        assert split(data, dialect, size, record.number, record.end) == found[done:]


@given(
    st.text(st.sampled_from(["a", ",", '"', "\n", "\r", "\\", "\ufeff"]), max_size=40),
    st.sampled_from([dialect for dialect in DIALECTS if dialect.delimiter == "," and dialect.quote == '"']),
    st.integers(1, 5),
    st.sampled_from([8, 100]),
    st.integers(0, 3),
)
@example('a\n\ufeff"b\nc"\n', DIALECTS[0], 1, 100, 0)
def test_no_text_depends_on_chunks(text: str, dialect: Dialect, size: int, limit: int, columns: int) -> None:
    data = text.encode()
    known = Dialect(dialect.delimiter, dialect.quote, dialect.escape, ["x"] * columns, 0)

    def outcome(number: int, offset: int, size: int) -> list[Line | str]:
        splitter, found = CsvSplitter(limit, number, offset, known), list[Line | str]()
        try:
            for start in range(offset, len(data), size):
                found += splitter.feed(data[start : start + size])
            found += splitter.finish()
        except BrokenText:
            found.append("broken")
        return found

    whole = outcome(0, 0, 1000)
    assert outcome(0, 0, size) == whole
    for done, record in enumerate(whole, start=1):
        if isinstance(record, Line):
            assert outcome(record.number, record.end, size) == whole[done:]


def csv_source(folder: Path, name: str, *, fields: Any = None, **options: Any) -> FileDocuments:
    body: dict[str, Any] = {"type": "files", "paths": [name]}
    spec = job(source=body | ({"csv": options} if options else {}) | ({"fields": fields} if fields else {}))
    return FileDocuments(spec, LocalFiles(folder), None, memory_pages())


def reasons(found: Sequence[SourceItem]) -> list[str]:
    return [
        item.content.dead_letter.reason if isinstance(item.content, InvalidDocument) else item.content.id
        for item in found
    ]


WAYS = {
    "comma": "document_id,content,title\nd0,text 0,\nd1,text 1,A\n",
    "crlf": "document_id,content,title\r\nd0,text 0,\r\nd1,text 1,A\r\n",
    "no end": "document_id,content,title\nd0,text 0,\nd1,text 1,A",
    "semicolon": "document_id;content;title\nd0;text 0;\nd1;text 1;A\n",
    "tab": "document_id\tcontent\ttitle\nd0\ttext 0\t\nd1\ttext 1\tA\n",
    "bar": "document_id|content|title\nd0|text 0|\nd1|text 1|A\n",
    "all quoted": '"document_id","content","title"\n"d0","text 0",""\n"d1","text 1","A"\n',
    "single quotes": "'document_id','content','title'\n'd0','text 0',''\n'd1','text 1','A'\n",
    "byte order mark": '\ufeff"document_id","content","title"\nd0,text 0,\nd1,text 1,A\n',
    "separator line": "sep=;\r\ndocument_id;content;title\r\nd0;text 0;\r\nd1;text 1;A\r\n",
    "blank lines": "\ndocument_id,content,title\n\nd0,text 0,\n \nd1,text 1,A\n\n",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.csv.gz", "a"])
async def test_a_table_is_read_and_resumed_at_every_row(tmp_path: Path, name: str, way: str) -> None:
    write(tmp_path / name, WAYS[way].encode())
    found = source(tmp_path, [name])
    everything = await items(found)
    assert [item.content for item in everything] == [
        Document("d0", "text 0", {"title": None}),
        Document("d1", "text 1", {"title": "A"}),
    ]
    for number, item in enumerate(everything):
        assert await items(found, item.position) == everything[number + 1 :]


TEXTS = [
    'He said "no", twice',
    "two\nlines\r\nand more",
    "a, b; c\td | e",
    "it's",
    "C:\\dir\\",
    '"',
    "2024-03-01",
    "0012",
    "1e5",
    "NULL",
    "=1+1",
    " blanks ",
    "ß € 𝄞",
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("escape", [False, True])
@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC])
async def test_texts_come_back_as_they_were_written(
    tmp_path: Path, delimiter: str, escape: bool, quoting: int
) -> None:
    rows = [["document_id", "content", "n"], *([f"d-{n}", text, str(n)] for n, text in enumerate(TEXTS * 4))]
    (tmp_path / "a.csv").write_bytes(written(rows, Dialect(delimiter, '"', escape), "\r\n", quoting))
    found = await items(source(tmp_path, ["a.csv"]))
    contents = [item.content for item in found]
    assert contents == [Document(identity, text, {"n": n}) for identity, text, n in rows[1:]]


async def test_a_table_without_quotes_keeps_them_in_its_cells(tmp_path: Path) -> None:
    cells = ['"Yes," he said.', 'a "b" c', 'x"', '"open']
    rows = "".join(f"d-{n}\t{cell}\n" for n, cell in enumerate(cells * 3))
    (tmp_path / "a.tsv").write_text("document_id\tcontent\n" + rows)
    found = await items(source(tmp_path, ["a.tsv"]))
    assert [item.content.text for item in found if isinstance(item.content, Document)] == cells * 3


HEAD = "document_id,content,title\n"
DAMAGED = {
    "too few cells": ("d0,a,b\nd1,a\nd2,a,b\n", ["d0", "wrong_columns", "d2"]),
    "too many cells": ("d0,a,b\nd1,a,b,c\nd2,a,b\n", ["d0", "wrong_columns", "d2"]),
    "no id": ("d0,a,b\n,a,b\n", ["d0", "missing_id"]),
    "no text": ('d0,a,b\nd1,"",b\n', ["d0", "no_content"]),
    "text behind a quote": ('d0,"a",b\nd1,"a"x,b\nd2,"a",b\n', ["d0", "bad_quotes", "d2"]),
    "stray quote": (
        'd0,a,b\nd1,"a,b\n' + "".join(f"e{n}x,a,b\n" for n in range(3)),
        ["d0", "bad_quotes", "e0x", "e1x", "e2x"],
    ),
    "stray quote, then quotes": (
        'd0,"a",b\nd1,"a,b\nd2,a,b\nd3,"a",b\nd4,a,b\n',
        ["d0", "bad_quotes", "d2", "d3", "d4"],
    ),
    "cut text": ('d0,a,b\nd1,"line\nand more, and\nmore', ["d0", "bad_quotes"]),
}


@pytest.mark.parametrize("form", DAMAGED)
async def test_a_damaged_row_is_a_dead_letter_and_its_neighbours_are_intact(
    tmp_path: Path, form: str
) -> None:
    text, expected = DAMAGED[form]
    good = "".join(f'g{n}-,"a, {n}",b\n' for n in range(20))
    (tmp_path / "a.csv").write_text(HEAD + good + text)
    found = await items(source(tmp_path, ["a.csv"]))
    assert reasons(found)[20:] == expected
    assert reasons(found)[:20] == [f"g{n}-" for n in range(20)]


async def test_bytes_that_are_no_text_cost_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HEAD.encode() + b"d0,a\xff,b\nd1,a\0b,\n")
    assert reasons(
        await items(
            source(
                tmp_path,
                ["a.csv"],
            )
        )
    )[1:] == ["d1"]


REFUSED = {
    "numbers": ("1,some text\n2,more text\n", "'1'|\"1\""),
    "like the rows": ("law-1,some text\nlaw-2,more text\nlaw-3,more\n", "law-1"),
    "dates": ("a,2024-03-01\nb,2024-03-02\n", "2024-03-01"),
    "long": (f"a,{'word ' * 50}\nb,c\n", "word word"),
    "address": ("https://example.org/a,text\nhttps://example.org/b,text\n", "https://"),
}


@pytest.mark.parametrize("form", REFUSED)
async def test_a_table_without_header_is_refused_with_the_way_on(tmp_path: Path, form: str) -> None:
    text, cell = REFUSED[form]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(
        JobFailed, match=f"looks like data and not like a header: it has the cell .*(?:{cell})"
    ) as failed:
        await source(tmp_path, ["a.csv"]).freeze()
    assert failed.value.hint == 'name the columns in the job: "csv": {"header": ["document_id", "content"]}'
    found = await items(csv_source(tmp_path, "a.csv", header=["document_id", "content"]))
    assert len(found) == text.count("\n")
    assert all(isinstance(item.content, Document) for item in found)


async def test_the_job_says_how_tables_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_text("document_id:content\nd0:'a:b'\nd1:c\n")
    for options, texts in (
        ({"delimiter": ":", "quote": "'"}, ["a:b", "c"]),
        ({"delimiter": ":", "quote": "'", "header": ["document_id", "content"]}, ["a:b", "c"]),
        ({"delimiter": ":", "quote": ""}, [None, "c"]),
    ):
        found = await items(csv_source(tmp_path, "a.dat", **options))
        assert [item.content.text if isinstance(item.content, Document) else None for item in found] == texts
    with pytest.raises(JobFailed, match=r"has 3 names, and the rows of a\.dat have 2 cells"):
        await csv_source(tmp_path, "a.dat", delimiter=":", header=["a", "b", "c"]).freeze()


async def test_names_of_columns_are_made_distinct(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",document_id, content ,a,a,a_2,\n0,d0,text,1,2,3,4\n")
    (item,) = await items(source(tmp_path, ["a.csv"]))
    assert item.content == Document(
        "d0", "text", {"column_1": "0", "a": "1", "a_3": "2", "a_2": "3", "column_7": "4"}
    )


async def test_a_mapping_names_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("uid,title,body\n12,T,B\n13,,B\n")
    found = await items(csv_source(tmp_path, "a.csv", fields={"id": "uid", "text": "{{title}}: {{body}}"}))
    assert reasons(found) == ["12", "missing_field"]
    lines = await items(csv_source(tmp_path, "a.csv", fields={"id": "line", "text": "body"}))
    assert item_ids(lines) == ["a.csv:2", "a.csv:3"]


NO_CSV = {
    "prose": "Dear Sir, I write\nto you, again,\nand wait.\n",
    "one line": "a,b,c\n",
    "markdown": "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n",
}


@pytest.mark.parametrize("text", NO_CSV.values(), ids=list(NO_CSV))
async def test_a_text_with_delimiters_is_no_table(tmp_path: Path, text: str) -> None:
    for name in ("a.txt", "a.md", "a"):
        (tmp_path / name).write_text(text)
        (file,) = await source(tmp_path, [name]).freeze()
        assert file["format"]["records"] == "text"


async def test_a_table_of_one_column_and_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('content\n"Hello, world"\nSo, what; no\n')
    found = await items(csv_source(tmp_path, "a.csv", fields={"id": "line"}))
    assert [item.content.text for item in found if isinstance(item.content, Document)] == [
        "Hello, world",
        "So, what; no",
    ]
    for text in ("", "\n \n", HEAD):
        (tmp_path / "b.csv").write_text(text)
        assert await items(source(tmp_path, ["b.csv"])) == []


async def test_line_ends_of_carriage_returns_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"document_id,content\rd0,a\rd1,b\r")
    with pytest.raises(JobFailed, match="end with a carriage return alone") as failed:
        await source(tmp_path, ["a.csv"]).freeze()
    assert failed.value.hint == "change them: tr '\\r' '\\n' < a.csv > changed.csv"


def test_an_open_quote_does_not_take_the_rest_of_a_large_file() -> None:
    dialect = Dialect(header=["a", "b"])
    rows = b"".join(b"id-%d,some text\n" % number for number in range(20_000))
    data = b'a,b\nx,"open\n' + rows
    found = split(data, dialect, 1 << 16, limit=10_000)
    assert len(found) == 20_001
    assert found[0].text == b'x,"open'
    assert found[1].text == b"id-0,some text"


def test_a_large_row_is_not_held_in_memory() -> None:
    dialect = Dialect(header=["a", "b"])
    tracemalloc.start()
    splitter = CsvSplitter(1000, 0, 0, dialect)
    found = list(splitter.feed(b'a,b\nx,"'))
    for _ in range(200):
        found += splitter.feed(b"some words\n" * 6000)
    found += splitter.feed(b'"\nd1,a\n')
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    large, small = found
    assert (large.size, small.text) == (200 * 66_000 + 4, b"d1,a")
    assert large.digest is not None
    assert peak < 4 << 20
    open_splitter = CsvSplitter(1000, 0, 0, dialect)
    with pytest.raises(
        BrokenText, match="row 2, which begins at byte 4 of its text, has a quote that is not closed"
    ):
        list(open_splitter.feed(b'a,b\nx,"' + b"some words\n" * 6000)) + list(open_splitter.finish())


def test_stray_quotes_do_not_copy_the_rest_of_the_chunk() -> None:
    large = b"3," + b"y" * (1 << 18) + b"\n"
    data = b"id,text\n" + b'1,"x\n2,y\n' * 10_000 + large * 64
    begin = time.process_time()
    found = split(data, Dialect(header=("id", "text")), len(data), limit=1 << 20)
    # A copy for each quote takes minutes.
    assert time.process_time() - begin < 15
    assert len(found) == 20_064


async def test_a_table_of_many_columns_is_planned_at_once(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(8_000)] + ["c"] * 8_000
    rows = [",".join(row) + "\n" for row in (names, ["v"] * len(names))]
    write(tmp_path / "in.csv", "".join(rows).encode())
    begin = time.process_time()
    [frozen] = await source(tmp_path, ["in.csv"]).freeze()
    # Comparing each name with all others takes a minute.
    assert time.process_time() - begin < 15
    assert len(set(frozen["format"]["options"]["header"])) == len(names)
