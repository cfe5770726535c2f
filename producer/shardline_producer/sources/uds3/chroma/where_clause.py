"""Filters as ChromaDB's `where` clause, so that the server sends fewer records.

All filters are checked again on the records that are read. A clause must match every record that passes the
filters, and may match more. ChromaDB compares text only for equality, and integers with other numbers by
value.
"""

from collections.abc import Mapping
from typing import Any

from shardline_common.job.spec import Range

_EXACT = 1 << 53
_MAX_VALUES = 100


def where_clause(filters: Mapping[str, Any]) -> dict[str, Any] | None:
    """The clause, or None if ChromaDB can evaluate none of the filters."""
    clauses = [clause for name, wanted in filters.items() for clause in _clauses(name, wanted)]
    return _joined("$and", clauses) if clauses else None


def _clauses(name: str, wanted: object) -> list[dict[str, Any]]:
    if isinstance(wanted, Range):
        bounds = (("$gte", wanted.gte), ("$lte", wanted.lte))
        return [{name: {sign: bound}} for sign, bound in bounds if _is_number(bound)]
    values = wanted if isinstance(wanted, list) else [wanted]
    if not 0 < len(values) <= _MAX_VALUES or not all(map(_is_comparable, values)):
        return []
    return [_joined("$or", [{name: {"$eq": value}} for value in values])]


def _joined(operator: str, clauses: list[dict[str, Any]]) -> dict[str, Any]:
    return clauses[0] if len(clauses) == 1 else {operator: clauses}


def _is_comparable(value: object) -> bool:
    return isinstance(value, str | bool) or _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _EXACT
