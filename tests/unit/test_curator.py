"""The curator: the same as the judge where there are no filters, and rows as a producer renders them."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.curation.filter import Rule
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.columns import Columns
from shardline_common.job.messages import Facts
from shardline_consumer.curation.curator import Curator, NamedRule, _head_of
from shardline_consumer.curation.personal_data import Redactor
from shardline_consumer.curation.verdicts import Bounds
from shardline_consumer.filters.clara import judge
from shardline_consumer.pii import KINDS
from shardline_producer.rows import RowRenderer
from shardline_producer.sources.source import Document
from tests.make import job

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(
    ["", " \u2028", "an max@example.org \x85", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111"]
)
VALUES = st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 70) | st.floats(allow_nan=False) | TEXTS
METADATA = st.dictionaries(
    st.sampled_from(["title", "pages", "rate", "flag", "other", "max@example.org"]),
    VALUES | st.lists(VALUES, max_size=2),
)
COLUMNS = Columns({"title": "string", "pages": "int", "rate": "float", "flag": "bool"})
RENDERER = RowRenderer(job(), COLUMNS)


def always(_: Any) -> float:
    return 0.0


@given(TEXTS, METADATA, st.floats(0, 1))
def test_without_a_filter_the_row_and_the_verdict_are_those_of_a_job_without_one(
    text: str, metadata: dict[str, Any], relevance: float
) -> None:
    row = RENDERER.render(Document("d", text, metadata, relevance))
    for curator in (
        Curator(0.5, []),
        Curator(0.5, [NamedRule("a.b", Rule("b", always, least=0.0))]),
        Curator(0.5, [], counter=Redactor(KINDS)),
    ):
        found, expected = curator.judge(*row), judge(row.facts, 0.5)
        assert found.reason == expected.reason
        assert (found.head, found.score_text, found.tail) == (row.head, expected.text, row.tail)
        assert (found.score, found.facts) == (expected.score, row.facts)


@given(TEXTS, METADATA)
def test_a_row_that_is_rendered_anew_has_the_bytes_of_the_producer(
    text: str, metadata: dict[str, Any]
) -> None:
    row = RENDERER.render(Document("d", text, metadata))
    assert _head_of(orjson.loads(row.head + b"0.5" + row.tail)) == row.head


@given(TEXTS, METADATA)
def test_a_redacted_row_has_nothing_left_and_the_facts_of_its_text(
    text: str, metadata: dict[str, Any]
) -> None:
    redactor = Redactor(KINDS)
    row = RENDERER.render(Document("d", text, metadata))
    found = Curator(0.0, [], redactor).judge(*row)
    line = found.head + found.score_text + found.tail
    after = orjson.loads(line)
    assert not redactor.count(after["text"], {**after["metadata"], "extra": None})
    again = RENDERER.render(Document("d", after["text"], {}))
    assert found.facts._replace(present=0) == again.facts
    assert line.endswith(b"\n")
    if found.reason is None and not found.pii:
        assert found.head == row.head
    elif after["metadata"]["extra"] is not None:
        assert isinstance(json.loads(after["metadata"]["extra"]), dict)


@pytest.mark.parametrize(
    ("bounds", "value", "broken"),
    [
        (Bounds(1.0, None), 0.5, 1.0),
        (Bounds(1.0, None), 1.0, None),
        (Bounds(None, 2.0), 2.5, 2.0),
        (Bounds(1.0, 2.0), 2.5, 2.0),
        (Bounds(1.0, 2.0), 0.5, 1.0),
        (Bounds(1.0, 2.0), float("nan"), None),
        (Bounds(None, None), 5.0, None),
    ],
)
def test_a_bound_is_broken_by_what_lies_outside_of_it(
    bounds: Bounds, value: float, broken: float | None
) -> None:
    assert bounds.broken_by(value) == broken


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_passes(value: float) -> None:
    rule = Rule("b", lambda _: value, least=1.0, most=2.0)
    row = RENDERER.render(Document("d", "text", {}))
    assert Curator(0.0, [NamedRule("a.b", rule)]).judge(*row).reason is None


def test_the_first_rule_that_does_not_hold_gives_the_reason_and_later_ones_are_not_asked() -> None:
    asked: list[str] = []

    def rule(name: str, value: float) -> NamedRule:
        def measure(_: Any) -> float:
            asked.append(name)
            return value

        return NamedRule(f"f.{name}", Rule(name, measure, most=1.0))

    row = RENDERER.render(Document("d", "text", {}))
    found = Curator(0.0, [rule("a", 1.0), rule("b", 3.0), rule("c", 5.0)]).judge(*row)
    assert (found.reason, found.value, found.threshold) == ("f.b", 3.0, 1.0)
    assert asked == ["a", "b"]


def test_an_error_of_a_rule_is_no_damaged_message() -> None:
    def fails(_: Any) -> float:
        raise ValueError("of a filter")

    row = RENDERER.render(Document("d", "text", {}))
    with pytest.raises(JobFailed, match=r"a\.b failed on the document 'd'") as error:
        Curator(0.0, [NamedRule("a.b", Rule("b", fails, most=1.0))]).judge(*row)
    assert error.value.code is FailureCode.FILTER_FAILED
    with pytest.raises(ValueError, match="unexpected"):
        Curator(0.0, [NamedRule("a.b", Rule("b", always, most=1.0))]).judge(
            Facts(9, 1, 0, False, 0.0), b"{", b"}"
        )


def test_the_name_of_a_field_says_what_its_value_is() -> None:
    metadata = {
        "telefon": "4711-22033",
        "phone_number": 4711220331,
        "steuer_id": "65 929 970 489",
        "title": "Gesetz 4711-22033",
        "extra": '{"fax":"0815 47 11","list":{"kennzeichen":["K-AB 1234"]},"count":2}',
    }
    redactor = Redactor(KINDS)
    _, redacted, counts = redactor.redact("Text", metadata)
    assert redacted == {
        "telefon": "[PHONE_1]",
        "phone_number": None,
        "steuer_id": "[TAX_ID_1]",
        "title": "Gesetz 4711-22033",
        "extra": '{"fax":"[PHONE_3]","list":{"kennzeichen":["[LICENCE_PLATE_1]"]},"count":2}',
    }
    assert counts == {"phone": 3, "tax_id": 1, "licence_plate": 1}
    columns = {name: value for name, value in metadata.items() if name != "extra"}
    assert redactor.count("Text", columns) == {"phone": 2, "tax_id": 1}
