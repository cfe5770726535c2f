"""The queries that are sent to ThemisDB, and its responses. Pure.

The server sorts a column by its index keys: numbers of up to 20 digits padded with zeros, ':' and '%'
escaped, and a ':' behind the value. So `a` comes after `a-b`, and `2` before `10`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from shardline_common.errors import FailureCode, JobFailed

MAX_ROWS = 10_000
"""The largest number of rows or keys that one query requests."""

_PADDED_DIGITS = 20
_MAX_PATH_BYTES = 1024
_NEVER_IN_A_PATH = ("..", "/", "\\", "?", "#", "%2e", "%2E")
_RANGE_MISSING = re.compile(r"(?:ORDER BY requires|Missing) range index (?:on|for) column: (?P<column>.+)")
_EQUALITY_MISSING = re.compile(r"kein Index für [^ ]+?\.(?P<column>.+)")


def order_key(value: str) -> bytes:
    """The sort key of a column's value: byte order of these keys is the server's order of the values."""
    if value.isascii() and value.isdigit() and len(value) <= _PADDED_DIGITS:
        return value.zfill(_PADDED_DIGITS).encode() + b":"
    return value.replace("%", "%25").replace(":", "%3A").encode() + b":"


def is_readable(table: str, key: str) -> bool:
    """Whether GET /entities can name this row.

    The server takes the path literally, decodes nothing, and refuses a path that looks like path traversal.
    """
    path = f"{table}:{key}"
    return (
        ":" not in key
        and len(path.encode("utf-8", "surrogatepass")) <= _MAX_PATH_BYTES
        and not any(part in path for part in _NEVER_IN_A_PATH)
        and all(char.isprintable() and not char.isspace() for char in path)
    )


@dataclass(frozen=True, slots=True)
class TableQuery:
    """Makes queries of a table in the order of its key column.

    `predicates` (column → value) are the equalities by which the server filters.
    """

    table: str
    key: str
    predicates: Mapping[str, str]

    def page(
        self, after: str | None, limit: int, *, until: str | None = None, keys: bool = False
    ) -> dict[str, Any]:
        """The query of the rows, or of their `keys`, with after < key column <= until.

        The server honours order and range only with `optimize` false. The limit is checked here, because a
        limit of 10^9 or a negative one ends the server's process.
        """
        if not 0 < limit <= MAX_ROWS:
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

    def between(self, first: str, last: str, limit: int) -> dict[str, Any]:
        """The query of the rows with first <= key column <= last."""
        return self.page(None, limit) | {"range": [{"column": self.key, "gte": first, "lte": last}]}


@dataclass(frozen=True, slots=True)
class ThemisRow:
    """A row of a response.

    `id` is the value of the key column, or None; `text` is the row's JSON. `fields` is None when the text is
    not valid JSON, which occurs because the server does not escape the names of fields.
    """

    id: str | None
    text: str
    fields: Mapping[str, Any] | None


def keys_of(response: Mapping[str, Any]) -> list[str]:
    """The keys in the response to a query of keys. Raises JobFailed when it is no such response."""
    return [key for key in _list(response, "keys") if isinstance(key, str)]


def rows_of(response: Mapping[str, Any], key: str) -> list[ThemisRow]:
    """The rows in the response to a query; `key` is the key column. Raises JobFailed as `keys_of`."""
    rows = []
    for text in _list(response, "entities"):
        if not isinstance(text, str):
            continue
        try:
            fields = orjson.loads(text)
        except orjson.JSONDecodeError:
            rows.append(ThemisRow(None, text, None))
        else:
            value = fields.get(key)
            identity = str(value) if type(value) is int else value
            rows.append(ThemisRow(identity if isinstance(identity, str) else None, text, fields))
    return rows


def _list(response: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = response.get(name)
    if not isinstance(value, list):
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"the response to a query has no list '{name}': this is no ThemisDB that Shardline supports",
            hint="check THEMIS_URL",
        )
    return value


@dataclass(frozen=True, slots=True)
class MissingIndex:
    """An index that a query needs and the table does not have. `kind` is "range" or "equality"."""

    column: str
    kind: str

    @classmethod
    def named_in(cls, message: str) -> "MissingIndex | None":
        """The index that the server's message requests; None when the message is about something else."""
        if found := _RANGE_MISSING.search(message):
            return cls(found["column"], "range")
        found = _EQUALITY_MISSING.search(message)
        return cls(found["column"], "equality") if found else None

    def calls(self, table: str) -> list[tuple[str, dict[str, str]]]:
        """The two requests that create it, as (path, body): create and rebuild.

        An index holds only rows that are written after its creation; the rebuild adds the older ones.
        """
        where = {"table": table, "column": self.column}
        kind = {"type": "range"} if self.kind == "range" else {}
        return [("/index/create", where | kind), ("/index/rebuild", where)]

    def error(self, table: str) -> JobFailed:
        """The error that names the requests. A job never creates an index itself."""
        calls = ", then ".join(
            f"POST {path} {orjson.dumps(body).decode()}" for path, body in self.calls(table)
        )
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"ThemisDB's table '{table}' has no {self.kind} index on '{self.column}', which this job needs",
            hint=f"create it with `shardline doctor --create-themis-indexes JOB.json`, or with {calls}",
        )
