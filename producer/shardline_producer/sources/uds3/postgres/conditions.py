"""Filters as SQL: a row passes by exactly the values that it shows. Pure.

The rule is that of `query_filters`, which compares the JSON values of a document. A column is compared in its
own type, so that an index can be used, where that has the same result; else its JSON is.
"""

import math
import re
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal

from shardline_common.job.spec import Range
from shardline_producer.sources.query_filters import DATE_PATTERN, DAY_LENGTH, is_day, is_moment
from shardline_producer.sources.uds3.postgres.fields import (
    JSON_TYPES,
    FieldExpression,
    ValueExpression,
    float_of,
    is_exact_number,
    is_json_number,
)
from shardline_producer.sources.uds3.postgres.statement import SqlStatement

_INT64 = 1 << 63
_INTEGERS = ("int2", "int4", "int8")
_FLOATS = ("float4", "float8")
_TIMES = ("date", "timestamp", "timestamptz")
_NEVER = "FALSE"
_ZONES = timedelta(days=2)
_NOT_FINITE = ["NaN", "Infinity", "-Infinity"]
# What a column of dates can show beside days and times of the years 1 to 9999, and beginnings of those.
_OTHER_DATE = re.compile(
    r"-?infinity|[0-9]{4}(?:-[0-9]{2})?|[0-9]{4,6}-[0-9]{2}-[0-9]{2}(?:T[0-9:.]+(?:[+]00:00)?)?(?: BC)?"
)


def condition(field: FieldExpression, wanted: object, statement: SqlStatement) -> str:
    """True for the rows whose field passes a filter; false or null for all others."""
    *firsts, last = field.values
    cases = "".join(
        f" WHEN {value.sql} IS NOT NULL THEN {_passes(value, wanted, statement)}" for value in firsts
    )
    condition = _passes(last, wanted, statement)
    return f"(CASE{cases} ELSE {condition} END)" if cases else condition


def _passes(value: ValueExpression, wanted: object, statement: SqlStatement) -> str:
    if isinstance(wanted, Range):
        bounds = [(sign, one) for sign, one in ((">=", wanted.gte), ("<=", wanted.lte)) if one is not None]
        if value.base in _TIMES and all(_is_date(bound) for _, bound in bounds):
            return _between_times(value, [(sign, str(bound)) for sign, bound in bounds], statement)
        return "(" + " AND ".join(_compare(value, sign, bound, statement) for sign, bound in bounds) + ")"
    options = wanted if isinstance(wanted, list) else [wanted]
    return "(" + (" OR ".join(_compare(value, "=", one, statement) for one in options) or _NEVER) + ")"


def _compare(value: ValueExpression, sign: str, wanted: object, statement: SqlStatement) -> str:
    """One comparison. It is never true when the types differ, such as a number and a text."""
    if wanted is None:
        # JSON's null is shown as a field that is missing.
        is_null = f"{value.sql} IS NULL"
        return f"({is_null} OR {_is_json(value, 'null')})" if value.base in JSON_TYPES else is_null
    if isinstance(wanted, bool):
        return _NEVER if sign != "=" else _equal_bool(value, wanted, statement)
    if isinstance(wanted, int | float):
        return _compare_number(value, sign, wanted, statement)
    return _compare_string(value, sign, str(wanted), statement)


def _equal_bool(value: ValueExpression, wanted: bool, statement: SqlStatement) -> str:
    if value.base in JSON_TYPES:
        return _if_json(value, "boolean", f"{value.text} = {statement.add(str(wanted).lower(), 'text')}")
    return f"{value.sql} = {statement.add(wanted, 'bool')}" if value.base == "bool" else _NEVER


def _compare_string(value: ValueExpression, sign: str, wanted: str, statement: SqlStatement) -> str:
    if sign == "=" and "\0" in wanted:
        return _NEVER
    if value.base in JSON_TYPES:
        text = _compare_text(value.text, sign, wanted, statement)
        numbers = ""
        if value.exact:
            # A number that no float holds is shown as text.
            is_text = f"NOT ({is_json_number(value.text)})"
            numbers = f" WHEN {_is_json(value, 'number')} THEN CASE WHEN {is_text} THEN {text} END"
        return f"CASE WHEN {_is_json(value, 'string')} THEN {text}{numbers} END"
    if value.base in _TIMES:
        return _compare_time(value, sign, wanted, statement)
    if value.kind == "json" or value.base in (*_INTEGERS, "bool"):
        return _NEVER
    text = value.text
    if value.base in (*_FLOATS, "numeric"):
        # JSON has no such numbers: they are shown as text.
        is_text = f"{value.number} IS NULL"
        if value.base == "numeric" and value.exact:
            is_text = f"NOT ({is_exact_number(value.sql)})"
        if value.base != "numeric":
            is_text = f"{value.sql}::text = ANY ({statement.add(_NOT_FINITE, 'text[]')})"
        text = f"CASE WHEN {is_text} THEN {value.sql}::text END"
    if sign != "=" or not value.is_text:
        return _compare_text(text, sign, wanted, statement)
    # This comparison can use an index. Texts with the same bytes are equal in every collation.
    indexed = f"{value.sql} = {statement.add(wanted, 'text')}"
    return indexed if value.plain else f"({indexed} AND {_compare_text(text, sign, wanted, statement)})"


def _is_json(value: ValueExpression, kind: str) -> str:
    return f"{value.base}_typeof({value.sql}) = '{kind}'"


def _if_json(value: ValueExpression, kind: str, condition: str) -> str:
    # The server may evaluate both sides of AND in any order, and CASE only what it needs.
    return f"CASE WHEN {_is_json(value, kind)} THEN {condition} END"


def _compare_number(value: ValueExpression, sign: str, wanted: float, statement: SqlStatement) -> str:
    if value.base in _INTEGERS:
        return _compare_integer(value.sql, sign, wanted, statement)
    if value.base in JSON_TYPES:
        exact = statement.add(format(Decimal(wanted), "f"), "text")
        near = _compare_float(float_of(f"{value.text}::numeric", value.text), sign, wanted, statement)
        numbers = (
            f"CASE WHEN {value.text} ~ '^-?[0-9]+$' THEN {value.text}::numeric {sign} {exact}::numeric"
            f" ELSE {near} END"
        )
        if value.exact:
            numbers = f"CASE WHEN {is_json_number(value.text)} THEN {numbers} END"
        return _if_json(value, "number", numbers)
    if value.base == "numeric" and value.exact:
        bound = statement.add(_exact_bound(wanted), "text")
        return f"({value.sql} {sign} {bound}::numeric AND {is_exact_number(value.sql)})"
    if value.base in (*_FLOATS, "numeric"):
        return _compare_float(value.number, sign, wanted, statement)
    return _NEVER


def _exact_bound(wanted: float) -> str:
    """The number that selects the same numerics, which show their own digits, as a number selects floats."""
    if isinstance(wanted, float) and not wanted.is_integer():
        return repr(wanted)
    return format(Decimal(wanted), "f")


def _compare_integer(sql: str, sign: str, wanted: float, statement: SqlStatement) -> str:
    bound = wanted if isinstance(wanted, int) else (math.floor if sign == "<=" else math.ceil)(wanted)
    if sign == "=" and bound != wanted:
        return _NEVER
    if not -_INT64 <= bound < _INT64:
        # The value exceeds all integers of a column: the range has no bound there, or is empty.
        return _NEVER if sign == "=" or (sign == ">=") == (bound > 0) else f"{sql} IS NOT NULL"
    return f"{sql} {sign} {statement.add(bound, 'int8')}"


def _compare_float(sql: str, sign: str, wanted: float, statement: SqlStatement) -> str:
    """Compare finite numbers. PostgreSQL sorts NaN as the largest, and JSON shows it as text."""
    bound = _nearest(sign, wanted)
    if bound is None:
        return _NEVER
    compared = f"{sql} {sign} {statement.add(bound, 'float8')}"
    if sign == "=":
        return compared
    beyond = math.inf if sign == ">=" else -math.inf
    return f"({compared} AND {sql} {'<' if sign == '>=' else '>'} {statement.add(beyond, 'float8')})"


def _nearest(sign: str, wanted: float) -> float | None:
    """The float that selects the same floats as the number does; None if no float is equal to it."""
    try:
        near = float(wanted)
    except OverflowError:
        near = math.inf if wanted > 0 else -math.inf
    if sign == "=":
        return near if near == wanted else None
    if sign == ">=" and near < wanted:
        return math.nextafter(near, math.inf)
    return math.nextafter(near, -math.inf) if sign == "<=" and near > wanted else near


def _compare_text(sql: str, sign: str, wanted: str, statement: SqlStatement) -> str:
    """Compare the bytes of texts, and dates as `query_filters` does."""
    before, nul, _ = wanted.partition("\0")
    if nul:
        # PostgreSQL has no text with this character, so the bound lies directly behind its beginning.
        return f'{sql} COLLATE "C" {sign.replace(">=", ">")} {statement.add(before, "text")}'
    bound = statement.add(wanted, "text")
    if sign == "<=" and is_day(wanted):
        return f'left({sql}, {DAY_LENGTH}) COLLATE "C" <= {bound}'
    compared = f'{sql} COLLATE "C" {sign} {bound}'
    if sign == "=" or not is_moment(wanted):
        return compared
    # The zones decide only between days that are near. Elsewhere the texts have the order of the moments, and
    # the pattern, which is slow, is not needed.
    first, last = (statement.add(day, "text") for day in _days_around(wanted))
    near = f'left({sql}, {DAY_LENGTH}) COLLATE "C" BETWEEN {first} AND {last}'
    pattern = statement.add(f"^(?:{DATE_PATTERN})$", "text")
    moment = f"({sql})::timestamptz {sign} {bound}::timestamptz"
    return f'CASE WHEN {near} AND {sql} COLLATE "C" ~ {pattern} THEN {moment} ELSE {compared} END'


def _days_around(moment: str) -> tuple[str, str]:
    """The days that a date can show that is less than a day and two zones away."""
    day = date.fromisoformat(moment[:DAY_LENGTH])
    before, behind = min(_ZONES, day - date.min), min(_ZONES, date.max - day)
    return (day - before).isoformat(), (day + behind).isoformat()


def _compare_time(value: ValueExpression, sign: str, wanted: str, statement: SqlStatement) -> str:
    """Compare a column of days or times with a text.

    The server refuses a text that is neither, such as a title. Words that it reads as a time of its clock,
    such as `yesterday`, match nothing.
    """
    day, moment = is_day(wanted), is_moment(wanted)
    if sign != "=" and (day or moment):
        return _between_times(value, [(sign, wanted)], statement)
    shown = _compare_text(value.text, sign, wanted, statement)
    if day if value.base == "date" else moment:
        # The first comparison can use an index; the second excludes other forms of the same moment.
        return f"({value.sql} = {statement.add(wanted, 'text')}::{value.base} AND {shown})"
    if day or moment or _OTHER_DATE.fullmatch(wanted):
        return shown
    return f"({statement.add(wanted, 'text')}::{value.base} IS NOT NULL AND {shown})"


def _is_date(bound: object) -> bool:
    return isinstance(bound, str) and (is_day(bound) or is_moment(bound))


def _between_times(value: ValueExpression, bounds: Sequence[tuple[str, str]], statement: SqlStatement) -> str:
    """A range of days or times. One condition has both bounds, so that an index reads what is between."""
    compared, shown = [], []
    for sign, wanted in bounds:
        shown.append(_compare_text(value.text, sign, wanted, statement))
        bound = statement.add(wanted, "text")
        if not is_day(wanted):
            compared.append(f"{value.sql} {sign} {bound}::timestamptz")
        elif sign == "<=":
            compared.append(f"{value.sql} < {bound}::date + 1")
        else:
            compared.append(f"{value.sql} >= {bound}::date")
    # Outside of the years 1 to 9999 the order of the texts is another one than that of the dates.
    first, behind = (f"{statement.add(day, 'text')}::date" for day in ("0001-01-01", "10000-01-01"))
    return (
        f"(({value.sql} >= {first} AND {value.sql} < {behind} AND {' AND '.join(compared)})"
        f" OR (({value.sql} < {first} OR {value.sql} >= {behind}) AND {' AND '.join(shown)}))"
    )
