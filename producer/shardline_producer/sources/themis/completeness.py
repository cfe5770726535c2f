"""Whether a list of rows has all rows of its table. Pure.

The indexes of ThemisDB may be incomplete: an index holds only the rows that were written since it was
created, and loses all of them while it is rebuilt. So the keys of a list are compared with the keys that
the server reads from the rows themselves, without an index.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_producer.sources.themis.queries import MissingIndex, order_key

_MAX_EXAMPLES = 3
_SAMPLE_KEYS = 10


class ExpectedKeys:
    """The keys that a list must have behind `after`, in the server's order. It is asked from the first on."""

    def __init__(self, keys: Iterable[str], after: str | None) -> None:
        start = order_key(after) if after else b""
        self._keys = sorted((key for key in keys if order_key(key) > start), key=order_key)
        self._next = 0

    def missing(self, until: str | None, listed: Collection[str]) -> list[str]:
        """The keys up to and with `until` that are not among the listed ones; None: to the end."""
        end = len(self._keys)
        if until is not None:
            end = bisect_right(self._keys, order_key(until), lo=self._next, key=order_key)
        due, self._next, known = self._keys[self._next : end], end, set(listed)
        return [key for key in due if key not in known]


def examples(keys: Sequence[str]) -> str:
    """The first keys, for a message; "" without one."""
    return f", such as {', '.join(map(repr, keys[:_MAX_EXAMPLES]))}" if keys else ""


def not_listed(
    table: str, column: str, keys: Sequence[str], code: FailureCode, rows: str | None = None
) -> JobFailed:
    """The error for rows that the range index on the key column does not list. `rows`: how many."""
    rebuild, _ = MissingIndex(column, "range").calls(table)[1]
    why = "they lack that column, or are older than the index"
    hint = f"give each row a text in '{column}'; then POST {rebuild} for the table and column, or run "
    hint += "`shardline doctor --create-themis-indexes JOB.json`"
    if code is FailureCode.SOURCE_CHANGED:
        why = "the index was made anew since the job was planned, or they were written without that column"
        hint += ", and retry the job"
    return JobFailed(
        code,
        f"ThemisDB's table '{table}' has {rows or f'{len(keys):,} rows'} that its range index on "
        f"'{column}' does not list{examples(keys)}: {why}",
        hint=hint,
    )


def not_json(table: str, key: str) -> JobFailed:
    """The error for a row that is not JSON."""
    return JobFailed(
        FailureCode.SOURCE_INVALID,
        f"ThemisDB's table '{table}' has a row '{key}' that is not JSON: no index lists it, and a scan of "
        "the table, a rebuild of an index, and a change of that row end the server's process",
        hint=f"POST /index/drop for every index of the table; then delete the row '{key}' or store it as "
        "JSON, and create and rebuild the indexes",
    )


def stale_entries(table: str, column: str, keys: Sequence[str]) -> JobFailed:
    """The error for keys in the range index on the key column that no row has."""
    rebuild, _ = MissingIndex(column, "range").calls(table)[1]
    return JobFailed(
        FailureCode.SOURCE_INVALID,
        f"the range index on '{column}' of ThemisDB's table '{table}' lists rows that do not exist"
        f"{examples(keys)}: it was dropped, and made anew with its old entries",
        hint=f"POST {rebuild} for the table and column, and retry the job",
    )


@dataclass(frozen=True, slots=True)
class TableState:
    """What a table held when the job was planned: the number of rows, None if unknown, and some keys."""

    rows: int | None = None
    keys: Sequence[str] = field(default_factory=tuple)

    @classmethod
    def of(cls, keys: Sequence[str] | None, rows: int | None) -> "TableState":
        """The state of a table with these keys; a few of them are kept."""
        found = keys or ()
        return cls(rows, tuple(found[:: max(1, len(found) // _SAMPLE_KEYS)][:_SAMPLE_KEYS]))

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "TableState":
        """The state in the facts of a plan."""
        return cls(facts.get("rows"), tuple(facts.get("keys", ())))

    def facts(self) -> dict[str, Any]:
        """The facts of a plan that `from_facts` reads."""
        return {"rows": self.rows, "keys": list(self.keys)}

    def change(self, rows: int | None, keys: Collection[str] | None) -> str | None:
        """Why a table that has these rows now cannot be the planned one; None when it can.

        `keys` are all keys that it has, if they are known.
        """
        if rows == 0:
            return "is empty" if self.rows or self.keys else None
        if rows is not None and self.rows is not None and 2 * rows < self.rows:
            return f"has {rows:,} rows, and had {self.rows:,} when the job was planned"
        if keys is not None and self.keys and set(self.keys).isdisjoint(keys):
            return f"has none of the rows that it had when the job was planned{examples(self.keys)}"
        return None
