"""The dates, times and durations of Arrow as ISO 8601 text, whatever their range."""

from collections.abc import Callable
from typing import Any

_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_SECOND = 1_000_000_000
_DAY_SECONDS = 86_400
_LAST_YEAR = 9999
# The days from 0000-03-01 to 1970-01-01, and those of 400 years: every such period has the same calendar.
_EPOCH_DAYS, _ERA_DAYS = 719_468, 146_097


def temporal_text(kind: Any) -> Callable[[Any], list[Any]] | None:
    """The conversion of arrays of a date, a time, a moment or a duration; None for other types."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    types = pa.types
    if types.is_interval(kind):
        return lambda array: [None if value is None else _interval(*value) for value in array.to_pylist()]
    if not types.is_temporal(kind):
        return None
    if types.is_date(kind):
        in_days = types.is_date32(kind)
        return _over(pa.int32(), _day) if in_days else _over(pa.int64(), _milliseconds)
    unit = _NANOSECONDS[kind.unit]
    whole = pa.int32() if types.is_time32(kind) else pa.int64()
    if types.is_timestamp(kind):
        # A moment with a zone is stored in UTC. What the clocks of the zone showed depends on a database.
        zone = "" if kind.tz is None else "+00:00"
        return _over(whole, lambda value: _moment(value * unit, zone))
    as_text = _duration if types.is_duration(kind) else _clock
    return _over(whole, lambda value: as_text(value * unit))


def _over(whole: Any, as_text: Callable[[int], str]) -> Callable[[Any], list[Any]]:
    return lambda array: [
        None if value is None else as_text(value) for value in array.view(whole).to_pylist()
    ]


def _day(days: int) -> str:
    """A date of the proleptic Gregorian calendar: Howard Hinnant's `civil_from_days`."""
    era, day_of_era = divmod(days + _EPOCH_DAYS, _ERA_DAYS)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9  # noqa: PLR2004 - the year begins with March here
    year = year_of_era + 400 * era + (month <= 2)  # noqa: PLR2004 - likewise
    sign = "-" if year < 0 else "+" if year > _LAST_YEAR else ""
    return f"{sign}{abs(year):04}-{month:02}-{day:02}"


def _clock(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, _SECOND)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{_fraction(rest)}"


def _fraction(nanoseconds: int) -> str:
    """Nothing, microseconds, or nanoseconds where microseconds do not show all of it."""
    if not nanoseconds:
        return ""
    return f".{nanoseconds:09}" if nanoseconds % 1000 else f".{nanoseconds // 1000:06}"


def _moment(nanoseconds: int, zone: str) -> str:
    days, rest = divmod(nanoseconds, _DAY_SECONDS * _SECOND)
    return f"{_day(days)}T{_clock(rest)}{zone}"


def _milliseconds(value: int) -> str:
    """A date of 64 bits, which is a day, unless a program wrote a time into it."""
    days, rest = divmod(value, _DAY_SECONDS * 1000)
    return _moment(value * _NANOSECONDS["ms"], "") if rest else _day(days)


def _duration(nanoseconds: int) -> str:
    seconds, rest = divmod(abs(nanoseconds), _SECOND)
    return f"{'-' if nanoseconds < 0 else ''}PT{seconds}{_fraction(rest)}S"


def _interval(months: int, days: int, nanoseconds: int) -> str:
    seconds, rest = divmod(abs(nanoseconds), _SECOND)
    return f"P{months}M{days}DT{'-' if nanoseconds < 0 else ''}{seconds}{_fraction(rest)}S"
