"""Why a page of keys and its rows do not agree, as an error that names the fault of the table. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from shardline_common.errors import FailureCode, JobFailed
from shardline_producer.sources.themis.queries import TableQuery, ThemisRow, order_key

_MAX_SHOWN = 60


def is_rising(behind: str, values: Sequence[str]) -> bool:
    """Whether the values are in the server's order behind a value, each once."""
    keys = [order_key(behind) if behind else b"", *map(order_key, values)]
    return all(one < other for one, other in pairwise(keys))


def key_fault(query: TableQuery, keys: Sequence[str], rows: Sequence[ThemisRow]) -> JobFailed:
    """The error of keys that are not, in order, the values of the key column of their rows.

    The server cuts a key at its last ':', and then the key names no row, or another one. So another fault is
    named only where each key has its row.
    """
    if len(rows) == len(keys):
        for key, row in zip(keys, rows, strict=True):
            if (found := value_fault(query, key, row)) is not None:
                return found
    ids = [row.id for row in rows if row.id]
    if len(set(keys)) == len(keys) and (repeated := _first_repeated(ids)):
        return column_error(query, f"has more than one row with '{_shown(repeated)}' in '{query.key}'")
    if len(rows) == len(keys) and (foreign := sorted({row.id for row in rows if row.id}.difference(keys))):
        return key_column_mismatch(query, foreign[0])
    cut = next((key for key, row in zip(keys, rows, strict=False) if row.id not in (key, None)), "")
    return cut_key_error(query, cut)


def rows_of_keys(
    query: TableQuery, keys: Sequence[str], rows: Sequence[ThemisRow]
) -> tuple[list[ThemisRow], JobFailed | None]:
    """The rows, each with its key as its id, and the error of keys and rows that do not agree."""
    if len(rows) != len(keys):
        known = {row.id for row in rows}
        if unlisted := sorted({row.id for row in rows if row.id}.difference(keys)):
            return [], key_column_mismatch(query, unlisted[0])
        return [], cut_key_error(query, next((key for key in keys if key not in known), ""))
    # A row that is not valid JSON has no id, nor has one whose id is a number with decimals. When no row is
    # missing, the position gives the id.
    pairs = list(zip(rows, keys, strict=True))
    found = [row if row.id is not None else replace(row, id=key) for row, key in pairs]
    odd = [value_fault(query, key, row) for row, key in pairs if row.id is None]
    fault = next(filter(None, odd), None)
    if fault is None and [row.id for row in found] == list(keys):
        return found, None
    return [], fault or key_fault(query, keys, rows)


def value_fault(query: TableQuery, key: str, row: ThemisRow) -> JobFailed | None:
    """The error of a row whose value in the key column cannot be an id, unless it is the row's key."""
    value = row.fields.get(query.key) if row.fields is not None else None
    if value == "":
        return column_error(query, f"has a row '{_shown(key)}' with an empty text in '{query.key}'")
    if isinstance(value, bool | float) and str(value).lower() != key:
        found = str(value).lower() if isinstance(value, bool) else f"the number {value}"
        what = f"has a row '{_shown(key)}' with {found} in '{query.key}', which is no text"
        return column_error(query, what)
    return None


def _first_repeated(ids: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            return one
        seen.add(one)
    return None


def _shown(key: str) -> str:
    return key if len(key) <= _MAX_SHOWN else f"{key[:_MAX_SHOWN]}…"


def column_error(query: TableQuery, what: str) -> JobFailed:
    """The error of a table with a row that the key column does not identify."""
    return JobFailed(
        FailureCode.SOURCE_INVALID,
        f"ThemisDB's table '{query.table}' {what}",
        hint=f"give that row a text of its own in '{query.key}', or set source.key to another column",
    )


def cut_key_error(query: TableQuery, key: str) -> JobFailed:
    """The error of keys that the server cuts; `key` is what is left of one, or ""."""
    example = f", such as one that ends in ':{_shown(key)}'" if key else ""
    return JobFailed(
        FailureCode.SOURCE_INVALID,
        f"ThemisDB cannot return all rows of '{query.table}': some keys hold ':'{example}, "
        f"or '{query.key}' repeats a value",
        hint="store those rows again under keys without ':'",
    )


def key_column_mismatch(query: TableQuery, value: str) -> JobFailed:
    """The error for a key column that does not hold the rows' keys."""
    return JobFailed(
        FailureCode.SOURCE_INVALID,
        f"ThemisDB has no row '{query.table}:{_shown(value)}', although the column '{query.key}' holds "
        f"'{_shown(value)}': the column does not hold the rows' keys, so no row can be read alone",
        hint="set source.key to the column that holds the keys, or source.lossless to false",
    )
