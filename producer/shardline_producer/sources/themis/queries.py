"""The queries that are sent to ThemisDB, and its responses. Pure.

The server sorts a column by its index keys: numbers of up to 20 digits padded with zeros, ':' and '%'
escaped, and a ':' behind the value. So `a` comes after `a-b`, and `2` before `10`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from shardline_common.errors import FailureCode, JobFailed
from shardline_producer.sources.exact_json import is_unicode

MAX_ROWS = 10_000
"""The largest number of rows or keys that one query requests."""

_PADDED_DIGITS = 20
_MAX_PATH_BYTES = 1024
_NEVER_IN_A_PATH = ("..", "/", "\\", "?", "#", "%2e", "%2E")
_PLAIN = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=@-]*")
_RANGE_MISSING = re.compile(r"(?:ORDER BY requires|Missing) range index (?:on|for) column: (?P<column>.+)")
_EQUALITY_MISSING = re.compile(r"kein Index für [^ ]+?\.(?P<column>.+)")


def order_key(value: str) -> bytes:
    """The sort key of a column's value: byte order of these keys is the server's order of the values."""
    if value.isascii() and value.isdigit() and len(value) <= _PADDED_DIGITS:
        return value.zfill(_PADDED_DIGITS).encode() + b":"
    return value.replace("%", "%25").replace(":", "%3A").encode() + b":"


def key_obstacle(table: str, key: str) -> str | None:
    """Why GET /entities cannot name this row, as the end of "a row whose key …"; None when it can.

    The server takes the path literally, decodes nothing, and refuses a path that looks like path traversal.
    """
    path = f"{table}:{key}"
    if ":" in key:
        return "holds ':'"
    for part in _NEVER_IN_A_PATH:
        if part in path:
            return f"holds '{part}'"
    for char in path:
        if char.isspace() or not char.isprintable():
            name = "white space" if char == " " else "an invisible character"
            return f"holds {name} (U+{ord(char):04X})"
    if (size := len(path.encode("utf-8", "surrogatepass"))) > _MAX_PATH_BYTES:
        return (
            f"is too long: with the table's name it has {size:,} bytes, and {_MAX_PATH_BYTES:,} are allowed"
        )
    return None


def is_readable(table: str, key: str) -> bool:
    """Whether GET /entities can name this row."""
    return key_obstacle(table, key) is None


def is_changed_by_proxies(key: str) -> bool:
    """Whether a proxy may change the key on its way: it holds characters that URLs hold only encoded."""
    return _PLAIN.fullmatch(key) is None


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

    def scan(self, unindexed: str | None = None) -> dict[str, Any]:
        """The query of the keys of all rows, or of those that match the predicates, without an index.

        The server uses the equality indexes instead, unless the query has a range on a column without a range
        index. So `unindexed` names a column of the predicates that has none; a range without bounds excludes
        no row that has the column.
        """
        body: dict[str, Any] = {"table": self.table, "allow_full_scan": True, "return": "keys"}
        if self.predicates:
            body["predicates"] = [{"column": name, "value": value} for name, value in self.predicates.items()]
            body["range"] = [{"column": unindexed}]
        return body

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


def is_json(text: str) -> bool:
    """Whether a stored text is JSON."""
    try:
        orjson.loads(text.encode("utf-8", "surrogatepass"))
    except orjson.JSONDecodeError:
        return False
    return True


def keys_of(response: Mapping[str, Any]) -> list[str]:
    """The keys in the response to a query of keys, of which `problem_of` found no fault."""
    return list(response["keys"])


def rows_of(response: Mapping[str, Any], key: str) -> list[ThemisRow]:
    """The rows in the response to a query, as `keys_of`; `key` is the key column."""
    rows = []
    for text in response["entities"]:
        fields = _fields(text)
        value = None if fields is None else fields.get(key)
        identity = str(value) if type(value) is int else value
        rows.append(ThemisRow(identity if isinstance(identity, str) else None, text, fields))
    return rows


def _fields(text: str) -> dict[str, Any] | None:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def problem_of(body: Mapping[str, Any], response: Mapping[str, Any]) -> str | None:
    """Why a response is not the whole answer to a query; None when it is.

    Where a list is shorter than the count beside it, or an item is no text, rows would be missing without
    notice.
    """
    name = "keys" if body.get("return") == "keys" else "entities"
    found = response.get(name)
    if not isinstance(found, list):
        said = response.get("message") or response.get("error")
        return f"it has no list '{name}'" + (f", and says: {said}" if said else "")
    if not all(type(item) is str for item in found):
        return f"its list '{name}' has an item that is no text"
    if name == "keys" and not all(map(is_unicode, found)):
        return "its list 'keys' has a key that is no UTF-8"
    count = response.get("count", len(found))
    return None if count == len(found) else f"it counts {count} {name} and has {len(found)}"


_COUNT_AT_START = re.compile(rb'\s*\{\s*"count"\s*:\s*(\d+)\s*,')


def count_at_start(body: bytes) -> int | None:
    """The count with which the server begins its response; None when the body begins otherwise."""
    found = _COUNT_AT_START.match(body)
    return int(found[1]) if found else None


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
