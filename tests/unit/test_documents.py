"""Lines become documents or dead letters with a reason, independent of the JSON library's limits."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.job.columns import Columns, conform, declared, infer
from shardline_common.job.row_check import RowCheck
from shardline_consumer.filters.clara import judge
from shardline_producer.rows import RowRenderer
from shardline_producer.sources.documents import parse_document, parse_metadata
from shardline_producer.sources.source import Document, InvalidDocument
from tests.make import job


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "invalid_json"),
        (b"", "invalid_json"),
        (b'{"document_id":"a","content":"x","n":NaN}', "invalid_json"),
        (b'{"document_id":"a","content":"x","n":-Infinity}', "invalid_json"),
        (b'{"document_id":"a","content":"\xff"}', "invalid_utf8"),
        (b'{"document_id":"a","content":"x\ny"}', "invalid_json"),
        (b"[1]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"content":"x"}', "missing_id"),
        (b'{"document_id":null,"content":"x"}', "missing_id"),
        (b'{"document_id":"","content":"x"}', "bad_id"),
        (b'{"document_id":true,"content":"x"}', "bad_id"),
        (b'{"document_id":1.5,"content":"x"}', "bad_id"),
        (b'{"document_id":"a\\u0000b","content":"x"}', "bad_id"),
        (b'{"document_id":"' + b"x" * 1025 + b'","content":"x"}', "bad_id"),
        (b'{"document_id":"a"}', "no_content"),
        (b'{"document_id":"a","content":null}', "no_content"),
        (b'{"document_id":"a","content":["x"]}', "content_not_text"),
        (b'{"document_id":"a","content":"\\ud800"}', "lone_surrogate"),
        (b'{"document_id":"\\udfff","content":"x"}', "lone_surrogate"),
        (b'{"document_id":"a","content":"x","n":' + b"[" * 101 + b"]" * 101 + b"}", "too_deep"),
        (b'{"document_id":"a","content":"x","n":' + b"[" * 90_000 + b"]" * 90_000 + b"}", "too_deep"),
    ],
)
def test_invalid_line_is_a_dead_letter(line: bytes, reason: str) -> None:
    found = parse_document(line, "in.jsonl:7")
    assert isinstance(found, InvalidDocument)
    assert found.dead_letter.reason == reason
    assert found.dead_letter.hint.startswith("in.jsonl:7: ")
    assert (found.key, found.dead_letter.size, found.dead_letter.original) == (
        "in.jsonl:7",
        len(line),
        line[:65_536],
    )


def document(line: bytes) -> Document:
    found = parse_document(line, "in.jsonl:1")
    assert isinstance(found, Document), found
    return found


def row_of(found: Document, columns: Columns) -> tuple[bytes, dict[str, object]]:
    facts, head, tail = RowRenderer(job(), columns).render(found)
    line = head + judge(facts, 0.5).text + tail
    return line, json.loads(line)


def test_values_that_parsers_differ_on_are_kept() -> None:
    found = document(
        b'{"document_id":7,"content":"x","big":123456789012345678901234567890,"over":1e999,'
        b'"half":"\\ud800","deep":[[1]],"twice":1,"twice":2,"score":"high"}'
    )
    assert found.id == "7"
    columns = Columns({"big": "int", "twice": "int"})
    metadata = conform(found.metadata, columns)
    assert metadata["twice"] == 2
    assert metadata["big"] is None
    extra = json.loads(metadata["extra"])
    assert extra == {
        "big": 123456789012345678901234567890,
        "over": "1e999",
        "half": "\ud800",
        "deep": [[1]],
        "score": "high",
    }
    line, row = row_of(found, columns)
    assert RowCheck(columns).problem(row) is None
    assert line.decode().count("\n") == 1


@given(st.text(), st.text(min_size=1), st.floats(-5, 5), st.dictionaries(st.text(), st.text()))
def test_rows_keep_every_text_on_one_line(
    text: str, identity: str, score: float, metadata: dict[str, str]
) -> None:
    fields = {
        name: value for name, value in metadata.items() if name not in ("document_id", "content", "score")
    }
    source = fields | {"document_id": identity, "content": text, "score": score}
    found = parse_document(json.dumps(source).encode(), "in.jsonl:1")
    if isinstance(found, InvalidDocument):
        assert found.dead_letter.reason == "bad_id"
        return
    columns = infer([found])
    line, row = row_of(found, columns)
    assert line.decode().splitlines() == [line.decode()[:-1]]
    assert (row["text"], row["document_id"]) == (text, identity)
    assert row["relevance_score"] == pytest.approx(score, abs=0.00005)
    assert RowCheck(columns).problem(row) is None
    assert row["metadata"] == conform(fields, columns)


@given(st.binary())
def test_parser_accepts_any_bytes(line: bytes) -> None:
    parse_document(line, "in.jsonl:1")


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(st.lists(st.dictionaries(st.sampled_from("abcde"), values), max_size=8))
def test_all_rows_of_a_dataset_have_one_schema(metadatas: list[dict[str, Any]]) -> None:
    documents = [Document("id", "text", metadata) for metadata in metadatas]
    columns = infer(documents[: len(documents) // 2])
    assert Columns.from_json(columns.to_json()) == columns
    for found in documents:
        _, row = row_of(found, columns)
        assert RowCheck(columns).problem(row) is None
        lost = {name for name, value in found.metadata.items() if value is not None} - {
            name for name, value in conform(found.metadata, columns).items() if value is not None
        }
        extra = conform(found.metadata, columns)["extra"]
        assert lost <= set(json.loads(extra) if extra else ())


def test_mixed_types_choose_the_type_of_their_column() -> None:
    samples: list[dict[str, Any]] = [
        {"n": 1, "s": "x", "b": True, "l": [1], "m": "x", "z": None},
        {"n": 1.5, "m": 2, "b": False},
    ]
    columns = infer([Document("id", "", sample) for sample in samples])
    assert columns.types == {"n": "float", "s": "string", "b": "bool", "m": "string", "z": "string"}
    assert declared(["n", "new"], infer([Document("id", "", samples[0])])).types == {
        "n": "int",
        "new": "string",
    }


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": 5}, "text is not a str"),
        ({"metadata": {"extra": None}}, "other columns"),
        ({"metadata": {"n": "x", "extra": None}}, "metadata.n is not a int"),
        ({"quality_score": 1}, "quality_score is not a float"),
        ({"more": 1}, "its keys are not"),
    ],
)
def test_row_that_breaks_the_schema_is_reported(change: dict[str, object], problem: str) -> None:
    columns = Columns({"n": "int"})
    _, row = row_of(Document("id", "text", {"n": 1}), columns)
    assert RowCheck(columns).problem(row) is None
    assert problem in str(RowCheck(columns).problem(row | change))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0.7", 0.7),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("-9223372036854775809", -9223372036854775809),
        ('{"deep": [18446744073709551616]}', {"deep": [18446744073709551616]}),
        ("1e400", "1e400"),
        ("1" + "0" * 5000, "1" + "0" * 5000),
        ("1e-400", 0.0),
        ('"12345678901234567890"', "12345678901234567890"),
        (r'"\ud800"', "\ud800"),
    ],
)
def test_numbers_of_a_database_keep_every_digit(text: str, value: object) -> None:
    found = parse_metadata('{"field": ' + text + "}")["field"]
    assert (found, type(found)) == (value, type(value))
