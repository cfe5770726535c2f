"""ThemisDB's tables, indexes and queries as they are at HEAD, with their bugs and without HTTP.

Numbers in brackets name the recorded exchanges that show the behaviour.
"""

import json
import struct
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_DIGITS = 20
_BEHIND = b"\xff"
_INT64 = 1 << 63
FATAL_LIMIT = 10**9


class QueryRefused(Exception):
    """The server answers 400 with this message."""


class Killed(Exception):
    """The server's process ends without an answer."""


def index_key(value: str) -> bytes:
    """A value in an index key: short numbers padded, ':' and '%' escaped, and a ':' behind it."""
    if value.isascii() and value.isdigit() and len(value) <= _DIGITS:
        return value.zfill(_DIGITS).encode() + b":"
    return value.replace("%", "%25").replace(":", "%3A").encode() + b":"


def parsed(blob: str) -> dict[str, Any]:
    """The fields that a query knows: objects are dropped, and arrays unless all are numbers (56)."""
    try:
        value = json.loads(blob)
    except ValueError:
        raise Killed(blob) from None
    if not isinstance(value, dict):
        # parseJson in base_entity.cpp: an array has no fields.
        return {}
    return {name: item for name, item in value.items() if _kept(item)}


def _kept(item: object) -> bool:
    if isinstance(item, list):
        return bool(item) and all(type(one) in (int, float) for one in item)
    return not isinstance(item, dict)


def rendered(fields: Mapping[str, Any]) -> str:
    """A row as /query returns it: names sorted and not escaped, doubles cut to 6 digits (56)."""
    parts = [f'"{name}":{_rendered(fields[name])}' for name in sorted(fields, key=str.encode)]
    return "{" + ",".join(parts) + "}"


def _rendered(item: object) -> str:
    if isinstance(item, list):
        return "[" + ",".join(_number(_single(float(one))) for one in item) + "]"
    if isinstance(item, float) or (type(item) is int and not -_INT64 <= item < _INT64):
        return _number(float(item))
    return json.dumps(item, ensure_ascii=False)


def _single(value: float) -> float:
    single: float = struct.unpack("f", struct.pack("f", value))[0]
    return single


def _number(value: float) -> str:
    return f"{value:.6g}"


def _comparable(item: object) -> str | None:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int | float):
        return f"{item:f}" if isinstance(item, float) else str(item)
    return item if isinstance(item, str) else None


@dataclass
class ThemisIndex:
    """The keys of one index, sorted as in RocksDB. What follows the last ':' is the row's key."""

    kind: str
    keys: list[bytes] = field(default_factory=list)

    def change(self, value: str | None, pk: str, *, add: bool) -> None:
        """Add or remove the entry of a row."""
        if value is None:
            return
        key = index_key(value) + pk.encode()
        at = bisect_left(self.keys, key)
        there = at < len(self.keys) and self.keys[at] == key
        if add and not there:
            insort(self.keys, key)
        elif there and not add:
            del self.keys[at]

    def between(self, start: bytes, end: bytes | None) -> list[str]:
        """The keys of rows from `start` to before `end`. A row's key that holds ':' is returned cut (95)."""
        first = bisect_left(self.keys, start)
        last = len(self.keys) if end is None else bisect_left(self.keys, end)
        return [key.rpartition(b":")[2].decode() for key in self.keys[first:last]]


@dataclass
class ThemisTables:
    """All entities by `table:key`, and the indexes. `fixed`: the server without its known bugs."""

    fixed: bool = False
    blobs: dict[str, str] = field(default_factory=dict)
    indexes: dict[tuple[str, str], list[ThemisIndex]] = field(default_factory=dict)

    def put(self, key: str, blob: str) -> None:
        """Store any blob (A41), and update the indexes that exist."""
        old = self.blobs.get(key)
        if old is not None:
            self._index(key, old, add=False)
        self.blobs[key] = blob
        self._index(key, blob, add=True)

    def delete(self, key: str) -> None:
        """Remove a row; a missing one is no error (17)."""
        old = self.blobs.get(key)
        if old is not None:
            self._index(key, old, add=False)
            del self.blobs[key]

    def _index(self, key: str, blob: str, *, add: bool) -> None:
        table, _, pk = key.partition(":")
        wanted = [(column, found) for (name, column), found in self.indexes.items() if name == table]
        if not wanted:
            return
        try:
            fields = parsed(blob)
        except Killed:
            if add:
                return
            # Tried at the real server: to delete or replace such a row ends it, if the table has an index.
            raise
        for column, found in wanted:
            for index in found:
                index.change(_comparable(fields.get(column)), pk, add=add)

    def create_index(self, table: str, column: str, kind: str) -> None:
        """Create an empty index (30, 47): existing rows are not in it before a rebuild."""
        found = self.indexes.setdefault((table, column), [])
        if all(index.kind != kind for index in found):
            found.append(ThemisIndex(kind))

    def rebuild(self, table: str, column: str) -> int:
        """Fill the index of a column from the rows (32).

        Of a column with two indexes only the range index is filled (rebuildIndex in secondary_index.cpp).
        """
        found = self.indexes.get((table, column), [])
        found = [index for index in found if index.kind == "range"] or found
        for index in found:
            index.keys.clear()
            for key, blob in self.blobs.items():
                if key.startswith(f"{table}:"):
                    value = _comparable(parsed(blob).get(column))
                    if value is not None:
                        index.keys.append(index_key(value) + key.partition(":")[2].encode())
            index.keys.sort()
        return sum(len(index.keys) for index in found)

    def columns(self, table: str) -> list[str]:
        """The columns of a table that have an index."""
        return [column for name, column in self.indexes if name == table]

    def _one(self, table: str, column: str, kind: str) -> ThemisIndex | None:
        found = self.indexes.get((table, column), [])
        return next((index for index in found if index.kind == kind), None)

    def keys(self, query: Mapping[str, Any]) -> list[str]:
        """The keys that a query finds.

        Raises:
            QueryRefused: an index is missing, or the query has neither predicates nor an order.
            Killed: the limit is more than the memory holds (A40).
        """
        ordered = bool(query.get("order_by") or query.get("range"))
        if query.get("allow_full_scan", False):
            return self._with_fallback(query, ordered=ordered)
        if not query.get("optimize", True) and ordered:
            return self._range_aware(query)
        prefix = "sequential: " if query.get("optimize", True) else ""
        return self._intersection(query, prefix)

    def _with_fallback(self, query: Mapping[str, Any], *, ordered: bool) -> list[str]:
        table, predicates = query["table"], query.get("predicates", [])
        missing = any(self._one(table, one["column"], "equality") is None for one in predicates) or any(
            self._one(table, one["column"], "range") is None for one in query.get("range", [])
        )
        if missing or not (predicates or ordered):
            # A full scan ignores order and limit (46).
            return self._scan(query)
        return self._range_aware(query) if ordered else self._intersection(query, "")

    def _scan(self, query: Mapping[str, Any]) -> list[str]:
        prefix = query["table"] + ":"
        found = []
        for key in sorted((key for key in self.blobs if key.startswith(prefix)), key=str.encode):
            pk = key.rpartition(":")[2]
            predicates = query.get("predicates", [])
            fields = parsed(self.blobs[key]) if predicates else {}
            if all(_comparable(fields.get(one["column"])) == one["value"] for one in predicates):
                found.append(pk)
        return found

    def _intersection(self, query: Mapping[str, Any], prefix: str) -> list[str]:
        if not query.get("predicates"):
            raise QueryRefused("executeAndKeysSequential: keine Prädikate")
        lists = [self._equal(query["table"], one, prefix) for one in query["predicates"]]
        return sorted(set.intersection(*map(set, lists)), key=str.encode)

    def _equal(self, table: str, predicate: Mapping[str, str], prefix: str = "") -> list[str]:
        column = predicate["column"]
        index = self._one(table, column, "equality")
        if index is None:
            raise QueryRefused(f"{prefix}scanKeysEqual: kein Index für {table}.{column}")
        start = index_key(predicate["value"])
        return index.between(start, start + _BEHIND)

    def _within(self, table: str, bounds: Mapping[str, Any]) -> list[str]:
        index = self._one(table, bounds["column"], "range")
        if index is None:
            raise QueryRefused(f"Missing range index for column: {bounds['column']}")
        start, end = b"", None
        # An empty bound is no bound.
        if bounds.get("gte"):
            start = index_key(bounds["gte"]) + (b"" if bounds.get("includeLower", True) else _BEHIND)
        if bounds.get("lte"):
            end = index_key(bounds["lte"]) + (_BEHIND if bounds.get("includeUpper", True) else b"")
        return index.between(start, end)

    def _range_aware(self, query: Mapping[str, Any]) -> list[str]:
        table = query["table"]
        lists = [self._equal(table, one) for one in query.get("predicates", [])]
        lists += [self._within(table, one) for one in query.get("range", [])]
        candidates = set.intersection(*map(set, lists)) if lists else set()
        order = query.get("order_by")
        if order is None:
            return sorted(candidates, key=str.encode)
        column = order["column"]
        if self._one(table, column, "range") is None:
            raise QueryRefused(f"ORDER BY requires range index on column: {column}")
        limit = self._limit(order)
        bounds = next((one for one in query.get("range", []) if one["column"] == column), {"column": column})
        scan = self._within(table, bounds)
        # The bug of (49, 50): a filter without candidates is taken for no filter.
        filters = bool(candidates) or (self.fixed and bool(lists))
        found = [pk for pk in scan if not filters or pk in candidates]
        return (found[::-1] if order.get("desc") else found)[: max(1, limit)]

    def _limit(self, order: Mapping[str, Any]) -> int:
        limit: int = order.get("limit", 1000)
        if not self.fixed and not 0 <= limit < FATAL_LIMIT:
            raise Killed("vector::reserve")
        return limit

    def entities(self, table: str, keys: Sequence[str]) -> list[str]:
        """The rows of keys as /query returns them; a key that names no row is left out without notice.

        Raises:
            Killed: one of the rows is no JSON (A42).
        """
        blobs = (self.blobs.get(f"{table}:{pk}") for pk in keys)
        return [rendered(parsed(blob)) for blob in blobs if blob is not None]
