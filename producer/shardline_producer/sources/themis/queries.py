"""What is asked of ThemisDB, and how its answers are read. Pure.

The server sorts a column by its index keys: short numbers padded with zeros, ':' and '%' escaped, and a
':' behind the value. So `a` comes behind `a-b`, and `2` before `10`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from shardline_common.errors import FailureCode, JobFailed

MOST_ROWS = 10_000
_PADDED = 20
_SEGMENT = 1024
_NEVER_IN_A_PATH = ("..", "/", "\\", "?", "#", "%2e", "%2E")
_RANGE_MISSING = re.compile(r"(?:ORDER BY requires|Missing) range index (?:on|for) column: (?P<column>.+)")
_EQUALITY_MISSING = re.compile(r"kein Index für [^ ]+?\.(?P<column>.+)")


def order_key(value: str) -> bytes:
    """Values of a column compare in the server's order as these do."""
    if value.isascii() and value.isdigit() and len(value) <= _PADDED:
        return value.zfill(_PADDED).encode() + b":"
    return value.replace("%", "%25").replace(":", "%3A").encode() + b":"


def readable(table: str, key: str) -> bool:
    """Whether GET /entities can name this row: a path is taken as it stands, and checked for traversal."""
    path = f"{table}:{key}"
    return (
        ":" not in key
        and len(path.encode("utf-8", "surrogatepass")) <= _SEGMENT
        and not any(part in path for part in _NEVER_IN_A_PATH)
        and all(char.isprintable() and not char.isspace() for char in path)
    )


@dataclass(frozen=True, slots=True)
class Target:
    """A table, its key column, and what the server filters by: column → value."""

    table: str
    key: str
    predicates: Mapping[str, str]

    def page(
        self, after: str | None, limit: int, *, until: str | None = None, keys: bool = False
    ) -> dict[str, Any]:
        """Rows behind `after`, up to and with `until`, in the key column's order.

        Only with `optimize` false are order and range honoured. More rows than MOST_ROWS are never asked
        for: a limit of 10^9, or below 0, ends the server.
        """
        if not 0 < limit <= MOST_ROWS:
            raise AssertionError(f"a page of {limit} rows")
        body: dict[str, Any] = {
            "table": self.table,
            "order_by": {"column": self.key, "limit": limit},
            "optimize": False,
        }
        if self.predicates:
            body["predicates"] = [{"column": name, "value": value} for name, value in self.predicates.items()]
        bounds = {} if after is None else {"gte": after, "includeLower": False}
        if until is not None:
            bounds["lte"] = until
        if bounds:
            body["range"] = [{"column": self.key} | bounds]
        return body | {"return": "keys"} if keys else body

    def window(self, first: str, last: str, limit: int) -> dict[str, Any]:
        """Rows from `first` up to and with `last`."""
        return self.page(None, limit) | {"range": [{"column": self.key, "gte": first, "lte": last}]}

    def point(self, value: str) -> dict[str, Any]:
        """The keys of rows with exactly this value in the key column: two are one too many."""
        return self.window(value, value, 2) | {"return": "keys"}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of an answer. `fields` None: its text is no JSON, as the server forgets to escape names."""

    id: str | None
    text: str
    fields: Mapping[str, Any] | None


def keys_of(answer: Mapping[str, Any]) -> list[str]:
    """The keys of an answer to `return: keys`."""
    return [key for key in _list(answer, "keys") if isinstance(key, str)]


def rows_of(answer: Mapping[str, Any], key: str) -> list[Row]:
    """The rows of an answer; `key` is the column that identifies them."""
    return [_row(text, key) for text in _list(answer, "entities") if isinstance(text, str)]


def _list(answer: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = answer.get(name)
    if not isinstance(value, list):
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"the answer to a query has no list '{name}': this is no ThemisDB that Shardline knows",
            hint="check THEMIS_URL",
        )
    return value


def _row(text: str, key: str) -> Row:
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Row(None, text, None)
    return Row(identity(fields.get(key)), text, fields)


def identity(value: object) -> str | None:
    """The value of a key column as text."""
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int else None


@dataclass(frozen=True, slots=True)
class MissingIndex:
    """An index that a query needs and the table does not have."""

    column: str
    kind: str

    @classmethod
    def named_in(cls, message: str) -> "MissingIndex | None":
        """The index that a refusal asks for; None when it is about something else."""
        if found := _RANGE_MISSING.search(message):
            return cls(found["column"], "range")
        found = _EQUALITY_MISSING.search(message)
        return cls(found["column"], "equality") if found else None

    def calls(self, table: str) -> list[tuple[str, dict[str, str]]]:
        """The requests that make it: path and body. Without the second, older rows stay out of it."""
        where = {"table": table, "column": self.column}
        kind = {"type": "range"} if self.kind == "range" else {}
        return [("/index/create", where | kind), ("/index/rebuild", where)]

    def error(self, table: str) -> JobFailed:
        """What to tell a user: nothing is created unasked."""
        calls = ", then ".join(
            f"POST {path} {orjson.dumps(body).decode()}" for path, body in self.calls(table)
        )
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"ThemisDB's table '{table}' has no {self.kind} index on '{self.column}', which this job needs",
            hint=f"have it made: `shardline doctor --create-themis-indexes JOB.json`, or {calls}",
        )
