"""The windows and placeholders of recurring exports."""

import json
from datetime import date, time, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline.cli.options import read_job
from shardline.services.date_range import parse_date_range
from shardline.services.job_template import fill_job
from shardline_common.errors import JobInvalid, UsageError
from shardline_common.job.spec import JOB_ID, Range, parse_job
from shardline_producer.sources.query_filters import passes
from shardline_producer.sources.source import Document

TODAY = date(2026, 3, 1)
DAYS = st.dates(date(1990, 1, 1), date(2090, 1, 1))
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "name", "first", "last"),
    [
        ("today", "2026-03-01", "2026-03-01", "2026-03-01"),
        ("yesterday", "2026-02-28", "2026-02-28", "2026-02-28"),
        ("last-week", "2026-w08", "2026-02-16", "2026-02-22"),
        ("last-month", "2026-02", "2026-02-01", "2026-02-28"),
        ("2024-02-29", "2024-02-29", "2024-02-29", "2024-02-29"),
        ("2020-W53", "2020-w53", "2020-12-28", "2021-01-03"),
        ("2026-12", "2026-12", "2026-12-01", "2026-12-31"),
        ("2026-11-01..2026-11-15", "2026-11-01-to-2026-11-15", "2026-11-01", "2026-11-15"),
    ],
)
def test_a_window_names_its_days(text: str, name: str, first: str, last: str) -> None:
    found = parse_date_range(text, TODAY)
    assert (found.name, found.first.isoformat(), found.last.isoformat()) == (name, first, last)


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2026-02-30", "2026-13", "2026-w54", "20260228", "2026-02-02..2026-02-01", "9999-12-31"],
)
def test_an_unknown_window_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--window") as refused:
        parse_date_range(text, TODAY)
    assert "yesterday" in (refused.value.hint or "")


@given(DAYS)
def test_windows_follow_each_other_without_gap_or_overlap(today: date) -> None:
    for text, step in (("yesterday", 1), ("last-week", 7)):
        now, then = parse_date_range(text, today), parse_date_range(text, today - step * DAY)
        assert now.first == then.last + DAY
        assert now.last < today
    month = parse_date_range("last-month", today)
    assert (month.first.day, (month.last + DAY).day) == (1, 1)
    assert (month.last + DAY).month == today.month


@given(DAYS, st.sampled_from(["today", "yesterday", "last-week", "last-month"]))
def test_a_window_name_parses_back_and_fits_into_a_job_id(today: date, text: str) -> None:
    found = parse_date_range(text, today)
    assert parse_date_range(found.name, TODAY) == found
    job = {"job_id": "laws-${window}", "name": "laws", "source": {"type": "uds3"}}
    assert parse_job(fill_job(json.dumps(job).encode(), found, ())).job_id == f"laws-{found.name}"
    assert JOB_ID.startswith("^[a-z0-9]")


@given(DAYS, st.times(), st.sampled_from(["T%H:%M:%S.%fZ", "T%H:%M:%S", "T%H:%M:%SZ", " %H:%M:%S+00:00"]))
def test_a_time_lies_in_the_window_of_its_day_only(day: date, at: time, form: str) -> None:
    text = day.isoformat() + at.strftime(form)
    for other in (day - DAY, day, day + DAY):
        values = parse_date_range(other.isoformat(), TODAY).values
        for value, end in ((text, "to"), (text, "end"), (day.isoformat(), "to"), (day.isoformat(), "end")):
            filters = {"at": Range(gte=values["from"], lte=values[end])}
            assert passes(Document("d", "x", {"at": value}), filters) == (other == day), (value, end)


def filled(job: object, *sets: str, window: str | None = None) -> object:
    found = parse_date_range(window, TODAY) if window else None
    return json.loads(fill_job(json.dumps(job).encode(), found, sets))


def test_placeholders_in_strings_are_filled() -> None:
    job = {
        "job_id": "${what}-${window}",
        "top_k": 5,
        "filters": {"created_at": {"gte": "${from}", "lte": "${end}"}, "${what}": ["${what}", None, True]},
        "text": "$${what} costs $5, ${ what } and {what}",
    }
    assert filled(job, "what=laws", window="yesterday") == {
        "job_id": "laws-2026-02-28",
        "top_k": 5,
        "filters": {
            "created_at": {"gte": "2026-02-28", "lte": "2026-02-28T23:59:59.999999Z"},
            "${what}": ["laws", None, True],
        },
        "text": "${what} costs $5, ${ what } and {what}",
    }


def test_a_value_cannot_change_the_jobs_structure() -> None:
    evil = '", "source": {"type": "uds3"}, "x": "${what}'
    assert filled({"name": "${what}"}, f"what={evil}") == {"name": evil}


@pytest.mark.parametrize(
    ("job", "sets", "window", "said"),
    [
        ({"a": "${from}"}, (), None, "give --window"),
        ({"a": "${what}"}, (), "yesterday", "give --set what=VALUE"),
        ({"a": "x"}, (), "yesterday", "nothing in the job depends on the window"),
        ({"a": "$${from}"}, (), "yesterday", "nothing in the job depends on the window"),
        ({"a": "${b}"}, ("b=1", "c=2"), None, "no placeholder ${c}"),
        ({"a": "${b}"}, ("b",), None, "is not NAME=VALUE"),
        ({"a": "${b}"}, ("B=1",), None, "is not NAME=VALUE"),
        ({"a": "${from}"}, ("from=1",), None, "the name is reserved for --window"),
        ({"a": [{"at": {"lte": "${next}"}}]}, (), "yesterday", 'write "lte": "${to}"'),
        ({"source": {"to_date": "${next}"}}, (), "yesterday", 'write "to_date": "${to}"'),
    ],
)
def test_placeholders_and_values_must_match(
    job: object, sets: tuple[str, ...], window: str | None, said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        filled(job, *sets, window=window)
    assert said in f"{refused.value}; {refused.value.hint}"


def test_read_job_fills_the_job_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.json"
    path.write_text('{"name": "laws", "source": {"type": "uds3"}, "labels": {"day": "${to}"}}')
    first, again = read_job(path, "2026-11-25"), read_job(path, "2026-11-25")
    assert first.body() == again.body()
    assert first.labels == {"day": "2026-11-25"}
    assert capsys.readouterr().err == ""
    read_job(path, "today")
    assert "is not over in UTC" in capsys.readouterr().err
    path.write_text('{"name": ')
    with pytest.raises(JobInvalid, match="not valid JSON"):
        read_job(path, "yesterday")
