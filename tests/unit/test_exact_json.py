"""JSON of stores: numbers keep their digits, and one odd value spoils no other."""

from typing import Any

import orjson
import pytest

from shardline_producer.sources.exact_json import MAX_DEPTH, parse_answer, parse_row

DEEP = "[" * 3000 + '"]\\""' + "]" * 3000


def nested(levels: int) -> str:
    """A list of this many levels."""
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("text", "row", "answer"),
    [
        ("0.7", 0.7, 0.7),
        ("-0.0", -0.0, -0.0),
        ("5.0", 5.0, 5.0),
        ("1e22", 1e22, 1e22),
        # As other programs print 0.1 and 0.9.
        ("0.10000000000000001", 0.1, 0.1),
        ("0.90000000000000002", 0.9, 0.9),
        ("5e-324", 5e-324, 5e-324),
        ("9007199254740993", 9007199254740993, 9007199254740993),
        ("18446744073709551616", 18446744073709551616, 18446744073709551616),
        ("1" * 400, int("1" * 400), int("1" * 400)),
        ("1" * 5000, "1" * 5000, "1" * 5000),
        # The numbers of databases are exact; those over HTTP are floats already where they come from.
        ("12345678901234567890.12", "12345678901234567890.12", 12345678901234567890.12),
        ("1234567890123456.7", "1234567890123456.7", 1234567890123456.7),
        ("0.33333333333333333333", "0.33333333333333333333", 0.3333333333333333),
        ("1e-400", "1e-400", 0.0),
        ("1e400", "1e400", "1e400"),
        ("-1e99999999999999999999", "-1e99999999999999999999", "-1e99999999999999999999"),
        (r'"\ud83d"', "\ud83d", "\ud83d"),
        ('{"a": 1, "a": 2}', {"a": 2}, {"a": 2}),
        (nested(MAX_DEPTH - 1), orjson.loads(nested(MAX_DEPTH - 1)), orjson.loads(nested(MAX_DEPTH - 1))),
    ],
)
def test_a_value_keeps_its_digits_beside_ordinary_ones(text: str, row: Any, answer: Any) -> None:
    found = parse_row(f'{{"first": [1.5, "x"], "odd": {text}, "last": true}}')
    assert list(found) == ["first", "odd", "last"]
    assert (found["odd"], type(found["odd"])) == (row, type(row))
    for beside in ("1", "1e400", DEEP):
        # Whatever stands beside it in an answer.
        whole = parse_answer(f'{{"odd": {text}, "beside": {beside}}}'.encode())
        assert (whole["odd"], type(whole["odd"])) == (answer, type(answer))


@pytest.mark.parametrize("levels", [MAX_DEPTH, 500, 1000, 3000, 100_000])
def test_a_value_that_is_nested_too_deep_is_its_text(levels: int) -> None:
    deep = nested(levels)
    assert parse_row(f'{{"a": [1], "deep": {deep}, "b": {{"c": []}}}}') == {
        "a": [1],
        "deep": deep,
        "b": {"c": []},
    }
    document = f'{{"_id": "d", "deep": {deep}, "metadata": {{"deep": {deep}, "title": "T"}}}}'
    answer = parse_answer(f'{{"rows": [{{"doc": {document}}}, {{"doc": {{"a": [[1]]}}}}]}}'.encode())
    first, second = (row["doc"] for row in answer["rows"])
    assert first == {"_id": "d", "deep": [nested(levels - 1)], "metadata": {"deep": deep, "title": "T"}}
    assert second == {"a": [[1]]}


@pytest.mark.parametrize(
    "text", ["", "[1]", "5", "null", '{"a": NaN}', '{"a": Infinity}', '{"a": 1', f'{{"a": {"[" * 3000}}}']
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_row(text)
    assert not isinstance(caught.value, RecursionError)


def test_an_answer_that_is_no_utf8_or_nested_as_a_whole_is_refused() -> None:
    for body in (b'{"a": "\xff"}', b'{"a": ' * 3000, b'{"a": NaN}'):
        with pytest.raises(ValueError, match=r"."):
            parse_answer(body)
