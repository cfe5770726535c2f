"""The date range of a recurring export, from the text of `--window`. Pure. All days are days in UTC."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from shardline_common.errors import UsageError

_DAY = timedelta(days=1)
_DATE = r"[12]\d{3}-\d{2}-\d{2}"
_FORMS = "today, yesterday, last-week, last-month, 2026-11-25, 2026-w48, 2026-11, or 2026-11-01..2026-11-15"


@dataclass(frozen=True, slots=True)
class DateRange:
    """The days from `first` to `last`, both included. `name` can be part of a job id."""

    name: str
    first: date
    last: date

    @property
    def values(self) -> dict[str, str]:
        """The values of a job's placeholders, by name (docs/recurring.md)."""
        return {
            "window": self.name,
            "from": self.first.isoformat(),
            "to": self.last.isoformat(),
            "end": f"{self.last.isoformat()}T23:59:59.999999Z",
            "next": (self.last + _DAY).isoformat(),
        }


PLACEHOLDERS = tuple(DateRange("", date.min, date.min).values)


def parse_date_range(text: str, today: date) -> DateRange:
    """Parse `yesterday`, `2026-w48` and the like; relative names are relative to `today`.

    Raises:
        UsageError: the text is not a date range.
    """
    relative = _relative(today).get(text)
    if relative is not None:
        return relative
    try:
        found = _absolute(text.lower())
    except ValueError as error:
        raise UsageError(f"--window {text}: {error}", hint=f"use {_FORMS}") from None
    if found is None:
        raise UsageError(f"--window {text} is no window", hint=f"use {_FORMS}")
    return found


def _relative(today: date) -> Mapping[str, DateRange]:
    monday = today - timedelta(days=today.weekday())
    return {
        "today": _day(today),
        "yesterday": _day(today - _DAY),
        "last-week": _week(monday - 7 * _DAY),
        "last-month": _month((today.replace(day=1) - _DAY).replace(day=1)),
    }


def _absolute(text: str) -> DateRange | None:
    if re.fullmatch(_DATE, text):
        return _day(date.fromisoformat(text))
    if re.fullmatch(r"[12]\d{3}-\d{2}", text):
        return _month(date.fromisoformat(text + "-01"))
    if found := re.fullmatch(r"([12]\d{3})-w(\d{2})", text):
        return _week(date.fromisocalendar(int(found[1]), int(found[2]), 1))
    if found := re.fullmatch(rf"({_DATE})\.\.({_DATE})", text):
        first, last = date.fromisoformat(found[1]), date.fromisoformat(found[2])
        if last < first:
            raise ValueError("it ends before it begins")
        return DateRange(f"{first.isoformat()}-to-{last.isoformat()}", first, last)
    return None


def _day(day: date) -> DateRange:
    return DateRange(day.isoformat(), day, day)


def _week(monday: date) -> DateRange:
    year, week, _ = monday.isocalendar()
    return DateRange(f"{year}-w{week:02d}", monday, monday + 6 * _DAY)


def _month(first: date) -> DateRange:
    last = (first + 31 * _DAY).replace(day=1) - _DAY
    return DateRange(f"{first.year:04d}-{first.month:02d}", first, last)
