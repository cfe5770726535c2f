"""The hot path of JSONL files gives the items that the rules for all documents give, byte for byte."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardline_common.job.columns import EXTRA, Columns
from shardline_common.job.messages import Position
from shardline_common.job.spec import JobSpec
from shardline_producer.encoder import DocumentRenderer
from shardline_producer.sources.documents import FieldNames
from shardline_producer.sources.files.file_reader import Cursor, FileReader, Reading
from shardline_producer.sources.source import AnyItem, Document, RenderedItem
from tests.make import job

SPEC = job(partitions=3)
COLUMNS = Columns({"title": "string", "domain": "string", "year": "int", "rank": "float", "ok": "bool"})
# A score that is text in one document is a column of text, or of numbers if a job says so.
SCORED = Columns({"title": "string", "score": "float", "document_type": "string"})
FILE = {"path": "a.jsonl", "size": 1, "version": "1"}
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    [
        "",
        " ",
        "\u2028x",
        "a\x85b",
        "\xa0 a\u3000b",
        'a "quoted" \\ text',
        "ä" * 1000,
        "two\nlines\t",
        "\x7f",
        "\U0001f600 x",
    ]
)
NUMBERS = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([2**63, -0.0, 1e308])
)
VALUES = TEXTS | NUMBERS | st.none() | st.booleans() | st.lists(st.integers(), max_size=2)
NAMES = st.sampled_from(
    ["title", "domain", "year", "rank", "ok", "score", "extra", "other", "content", "document_id"]
)
FIELDS = st.fixed_dictionaries(
    {"document_id": TEXTS | VALUES, "content": TEXTS | VALUES},
    optional={
        "title": VALUES,
        "domain": TEXTS,
        "year": st.integers(0, 3000),
        "rank": NUMBERS,
        "score": VALUES,
    },
)


def items(
    lines: Iterable[bytes],
    *,
    short: bool,
    spec: JobSpec = SPEC,
    columns: Columns = COLUMNS,
    cuts: tuple[int, ...] = (),
) -> list[AnyItem]:
    """The items of a file whose bytes are cut into chunks; without the shorter way unless `short`."""
    renderer = DocumentRenderer(spec, columns)

    def render(position: Position, size: int, document: Document) -> RenderedItem:
        return renderer(position, size, document)

    reading = Reading(spec.max_document_bytes, {}, False, FieldNames(), render=renderer if short else render)
    reader, data = FileReader(FILE, Cursor(), reading), b"\n".join(lines)
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    found = [item for start, end in pairwise(bounds) for item in reader._feed(data[start:end])]
    return [*found, *reader._finish()]


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    """A line of JSON, as several writers write it, or with a damaged byte or a field twice."""
    fields: dict[str, Any] = draw(FIELDS)
    spaces = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    text = json.dumps(fields, ensure_ascii=draw(st.booleans()), separators=spaces)
    if draw(st.booleans()):
        again = json.dumps({draw(NAMES): draw(VALUES)}, ensure_ascii=False, separators=spaces)
        text = f"{text[:-1]}{spaces[0]}{again[1:]}"
    line = text.encode("utf-8", "surrogatepass").replace(b"\n", b"")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(line) - 1))
        line = line[:at] + draw(st.binary(max_size=2)).replace(b"\n", b"") + line[at + 1 :]
    return line + draw(st.sampled_from([b"", b"\r", b" "]))


@given(st.lists(json_lines(), max_size=8), st.lists(st.integers(0, 5000), max_size=3))
@example([b'{"document_id":"a","content":"T","content":""}'], [])
@example(
    [b'{"document_id":"a","content":"T","score":0.25}', b'{"document_id":"b","content":"T","score":-0.0}'], []
)
@example([b'{"document_id":"a","x\\"content":"T","content" : ""}'], [])
@example([b'{"document_id":"a","title":{"content":"T"},"content" : ""}'], [])
@example([b'{"document_id":"a","content":"\x01"}', b'{"document_id":"a","content":"\xed\xa0\x80"}'], [])
def test_the_shorter_way_gives_the_same_items(lines: list[bytes], cuts: list[int]) -> None:
    for columns in (COLUMNS, SCORED):
        found = [items(lines, short=short, columns=columns, cuts=tuple(cuts)) for short in (True, False)]
        assert found[0] == found[1]


def test_an_ordinary_document_takes_the_shorter_way() -> None:
    render = DocumentRenderer(SPEC, COLUMNS).of_lines("document_id", "content")
    assert render is not None
    fields = {
        "document_id": "ä/1"[1:],
        "content": "Größe, zwei Wörter",
        "title": "t",
        "year": 2020,
        "score": 0.5,
    }
    found = render(orjson.dumps(fields), (0, 1, 9, 1), 9)
    assert found is not None
    assert found == DocumentRenderer(SPEC, COLUMNS)(
        (0, 1, 9, 1), 9, Document("/1", "Größe, zwei Wörter", {"title": "t", "year": 2020}, 0.5)
    )


@pytest.mark.parametrize(
    ("changes", "columns"),
    [
        ({}, Columns({"title": "string"}, {"titel": "title"})),
        ({}, Columns({EXTRA: "string"})),
        ({}, Columns({"title": "int"})),
        ({"output": {"validation_fraction": 0.5}}, COLUMNS),
        ({"output": {"layout": "assembled"}}, COLUMNS),
    ],
)
def test_jobs_with_other_rules_have_no_shorter_way(changes: dict[str, Any], columns: Columns) -> None:
    assert DocumentRenderer(job(**changes), columns).of_lines("document_id", "content") is None
