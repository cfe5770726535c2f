"""What most documents go through is short; the long way, which decides in doubt, gives the same."""

from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardline_common.job.clara_score import count_present, present_fields
from shardline_common.job.columns import Columns, Conformer, conform, distinct
from shardline_producer.sources import documents
from shardline_producer.sources.documents import parse_document
from shardline_producer.sources.files.lines import Line, LineSplitter

STRINGS = st.sampled_from(
    [
        b'"a"',
        b'""',
        b'" "',
        b'"\xc3\xa4\xe2\x80\x9e\xf0\x9f\x98\x80"',
        b'"\xe2\x80\xa8\xc2\x85\x7f"',
        rb'"\u00e4\n\"\\\/\b\f\r\t"',
        rb'"\ud83d\ude00"',
        rb'"\ud800"',
        rb'"\ude00\ud83d"',
        rb'"\uD8"',
        rb'"\x"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"a\tb"',
        b'"a\x00b"',
        rb'"\u0000"',
        b'"' + b"x" * 1025 + b'"',
        b'"open',
    ]
)
NUMBERS = st.sampled_from(
    b"0 -0 -0.0 1 01 1.0 1.50 1E5 1e-400 1e400 -1e400 9223372036854775807 9223372036854775808 1e19 true null"
    b" -9223372036854775808 -9223372036854775809 18446744073709551616 0.1000000000000000055511151231257827"
    b" 123456789012345678901234567890 NaN Infinity false nul .5".split()
) | st.integers().map(lambda number: str(number).encode())


def nested(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    deeper = st.tuples(inner, st.sampled_from([1, 2, 7, 8, 9, 10, 97, 98, 99, 100]))
    return (
        st.lists(inner, max_size=3).map(lambda found: b"[" + b",".join(found) + b"]")
        | st.lists(st.tuples(STRINGS, inner), max_size=3).map(json_object)
        | deeper.map(lambda found: b"[" * found[1] + found[0] + b"]" * found[1])
    )


def json_object(members: list[tuple[bytes, bytes]]) -> bytes:
    return b"{" + b",".join(name + b":" + value for name, value in members) + b"}"


VALUES = st.recursive(STRINGS | NUMBERS, nested, max_leaves=4)
NAMES = st.sampled_from([b'"document_id"', b'"content"', b'"score"', b'"a"', rb'"\u0061"', b'"b"'])
MEMBERS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
PLAIN = [(b'"document_id"', b'"d"'), (b'"content"', b'"text"')]


@given(MEMBERS | MEMBERS.map(lambda found: PLAIN + found))
@example([*PLAIN, (b'"a"', b"[[18446744073709551616]]")])
@example([*PLAIN, (b'"a"', b'{"b":{"b":1e400}}')])
@example([*PLAIN, (b'"a"', b"[" * 100 + b"]" * 100)])
@example([*PLAIN, (b'"a"', b"[" * 100 + b"]" * 100), (b'"a"', b"[]")])
def test_a_line_is_read_as_by_the_exact_parser(members: list[tuple[bytes, bytes]]) -> None:
    # A field that is no text, so that the exact parser is asked.
    line = json_object([*members, (b'"z"', b"true")])
    found = parse_document(line, "in.jsonl:1")
    with patch.object(documents, "_needs_exact_parse", return_value=True):
        exact = parse_document(line, "in.jsonl:1")
    # By repr, because 1, 1.0 and True are equal.
    assert repr(found) == repr(exact)


FIELDS = st.dictionaries(
    st.sampled_from(["s", "i", "f", "b", "S", "x", "extra", "title", "domain", "document_type"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([1 << 53, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, -(1 << 63), -(1 << 63) - 1])
    | st.floats()
    | st.text(st.characters() | st.sampled_from("\ud800\udfff\u2028"), max_size=5)
    | st.lists(st.integers(), max_size=2),
    max_size=5,
)
TYPES = {"s": "string", "i": "int", "f": "float", "b": "bool", "title": "string"}


@given(FIELDS, st.sampled_from([TYPES, TYPES | {"extra": "string"}, TYPES | {"S": "string"}, {}]))
@example({"f": float("nan")}, TYPES)
@example({"s": "\ud800"}, TYPES)
def test_metadata_conforms_as_by_the_rules(metadata: dict[str, Any], types: dict[str, str]) -> None:
    for columns in (Columns(types), distinct(Columns(types))):
        assert Conformer(columns).to_json(metadata) == orjson.dumps(conform(metadata, columns))
    assert count_present(metadata) == len(present_fields(metadata))


@given(st.lists(st.sampled_from([b"", b"x", b"{}", b"x\r", b"\r", b" ", b"\v\f", b" y", b"z" * 9])))
def test_lines_are_those_that_python_splits(parts: list[bytes]) -> None:
    data = b"\n".join(parts)
    splitter = LineSplitter(8)
    found = [*splitter.feed(data), *splitter.finish()]
    expected, end = [], 0
    for number, part in enumerate(parts):
        end += len(part) + (number < len(parts) - 1)
        text = part.removesuffix(b"\r")
        if text.strip():
            expected.append((number + 1, end, text))
    assert [(one.number, one.end, one.text) for one in found if one.digest is None] == [
        one for one in expected if len(one[2]) <= 8
    ]
    assert all(isinstance(one, Line) for one in found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (True, None),
        (None, None),
        ("1", None),
        (1e301, None),
        (10**400, None),
        (0.5, 0.5),
        (7, 7.0),
        (1e300, 1e300),
    ],
)
def test_a_score_is_a_number_in_bounds(value: object, score: float | None) -> None:
    assert repr(documents.as_score(value)) == repr(score)
