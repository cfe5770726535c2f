"""The rule of filters that every source follows."""

from typing import Any

import pytest

from shardline_common.errors import JobFailed
from shardline_common.job.spec import Query
from shardline_producer.sources.query_filters import check_filters, check_types, passes
from shardline_producer.sources.source import Document
from shardline_producer.sources.themis.conditions import Conditions

NOON = "2020-01-02T12:00:00Z"


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        # A day as the upper bound includes all its hours, in the zone that the value shows.
        ("2020-01-02", {"lte": "2020-01-02"}, True),
        ("2020-01-02T23:59:59.999999Z", {"lte": "2020-01-02"}, True),
        ("2020-01-02 23:59", {"lte": "2020-01-02"}, True),
        ("2020-01-02T23:30:00-05:00", {"lte": "2020-01-02"}, True),
        ("2020-01-03T00:00:00Z", {"lte": "2020-01-02"}, False),
        ("2020-01-02T00:00:00Z", {"gte": "2020-01-02"}, True),
        ("2020-01-01T23:59:59Z", {"gte": "2020-01-02"}, False),
        # A day that does not exist is a text like any other.
        ("2020-02-30T12:00:00Z", {"lte": "2020-02-30"}, False),
        ("0000-01-01T12:00:00Z", {"lte": "0000-01-01"}, False),
        ("2020-02-29T12:00:00Z", {"lte": "2020-02-29"}, True),
        ("2021-02-29T12:00:00Z", {"lte": "2021-02-29"}, False),
        ("2000-02-29T12:00:00Z", {"lte": "2000-02-29"}, True),
        ("1900-02-29T12:00:00Z", {"lte": "1900-02-29"}, False),
        # A month is no day.
        ("2020-01-02", {"lte": "2020-01"}, False),
        # A bound with a time is a moment, whatever the form of either.
        (NOON, {"gte": "2020-01-02T12:00:00+00:00", "lte": "2020-01-02T12:00:00+00:00"}, True),
        (NOON, {"gte": "2020-01-02T14:00+02:00", "lte": "2020-01-02 12:00:00.000"}, True),
        ("2020-01-02T12:00:00.5Z", {"lte": NOON}, False),
        ("2020-01-02T12:00:00", {"gte": NOON, "lte": NOON}, True),
        ("2020-01-02T23:00:00-05:00", {"lte": "2020-01-03T03:59:59Z"}, False),
        ("2020-01-02", {"gte": "2020-01-02T00:00:00Z"}, True),
        ("2020-01-02", {"gte": "2020-01-02T00:00:01Z"}, False),
        ("0001-01-01T00:00:00Z", {"gte": "0001-01-01T00:00:00+14:00"}, True),
        ("9999-12-31T23:59:59Z", {"lte": "9999-12-31T23:59:59-14:00"}, True),
        # Other texts compare by their code points.
        ("infinity", {"gte": NOON}, True),
        ("a title", {"gte": "2020-01-02"}, True),
        ("2020-01-02\n", {"lte": "2020-01-02T00:00:00Z"}, True),
        # Equality is that of the JSON values.
        (NOON, "2020-01-02T12:00:00+00:00", False),
        ("2020-01-02T12:00:00Z", "2020-01-02", False),
        (1, True, False),
        (1, {"lte": True}, False),
        (7, 7.0, True),
        ("7", {"lte": 7}, False),
    ],
)
def test_a_value_passes_a_filter(value: object, wanted: Any, expected: bool) -> None:
    filters = Query.model_validate({"filters": {"field": wanted}}).filters
    assert passes(Document("d", "x", {"field": value}), filters) is expected


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("2020-01-02", "2020-01-02", True),
        (None, "2020-01-01", False),
        (None, "2020-01", True),
        (None, "2019", False),
        (NOON, NOON, True),
        ("2020-01-02T14:00:00+02:00", "2020-01-02T07:00:00-05:00", True),
        ("2020-01-02T12:00:00.5Z", None, False),
        (None, "2020-01-02T11:59:59Z", False),
        (None, None, True),
    ],
)
def test_the_dates_of_themisdb_follow_the_rule(since: str | None, until: str | None, expected: bool) -> None:
    conditions = Conditions({}, since, until, {})
    assert conditions.meets(Document("d", "x", {"created_at": "2020-01-02T12:00:00+00:00"})) is expected
    assert not Conditions({}, since or "2020", until, {}).meets(Document("d", "x", {"created_at": 2020}))


def test_a_filter_on_an_unknown_field_names_the_one_that_was_meant() -> None:
    with pytest.raises(JobFailed) as caught:
        check_filters({"domian": "x"}, ["domain", "title"])
    assert str(caught.value) == (
        "query.filters: the source has no field 'domian'; it has content, document_id, domain, score, title; "
        "did you mean `domain`?"
    )


@pytest.mark.parametrize(
    ("values", "wanted", "hint"),
    [
        (["1999", None, "2001"], {"gte": 2000}, 'write a text, such as {"year": {"gte": "2000"}}'),
        (["1999"], 2001, 'write a text, such as {"year": "2001"}'),
        (["1999"], [2001, 2002], 'write a text, such as {"year": ["2001", "2002"]}'),
        ([1999, 2001.5], {"lte": "2000-01-01"}, 'write a number, such as {"year": 1}'),
        ([True], "true", 'write {"year": true} or false'),
        ([["a"]], "a", "lift a value in it with source.flatten"),
        (["1999", 1999], {"gte": 2000}, None),
        (["1999"], ["2001", 2002], None),
        (["1999"], [2001, None], None),
        ([None], 2001, None),
        ([], 2001, None),
        ([True], False, None),
    ],
)
def test_a_filter_of_another_type_than_its_field_is_refused(
    values: list[Any], wanted: Any, hint: str | None
) -> None:
    documents = [Document(str(number), "text", {"year": value}) for number, value in enumerate(values)]
    filters = Query(filters={"year": wanted}).filters
    if hint is None:
        check_types(filters, documents)
        return
    assert not any(passes(document, filters) for document in documents)
    with pytest.raises(
        JobFailed, match=r"query\.filters: 'year' is compared with .*: no document would pass"
    ) as failed:
        check_types(filters, documents)
    assert hint in str(failed.value.hint)
