"""Metadata columns: every row of a dataset has the same keys and types.

A column holds one scalar type. A value without a column, or of another type, goes as JSON text into the
column `extra`, unchanged and in the order of the document.

The names of columns differ also without upper and lower case, and have no control characters: DuckDB, Spark
and Arrow refuse a struct otherwise. A field whose name is not one of a column is renamed.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

import orjson

from shardline_common.job.spec import ColumnType

EXTRA = "extra"
REPAIRED = "text_repaired"
"""The column of a job that repairs texts: whether that of the row was changed."""
_RARE = 100
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_INT64 = 1 << 63
_EXACT = 1 << 53
_DTYPES = {"string": "string", "int": "int64", "float": "float64", "bool": "bool"}
_PYTHON_TYPES: dict[str, type] = {"string": str, "int": int, "float": float, "bool": bool}
_KINDS: dict[type, str] = {str: "string", int: "int", float: "float", bool: "bool"}


class HasMetadata(Protocol):
    """The part of a document that columns are inferred from."""

    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Names and types in row order. The column `extra` always follows them.

    `renamed` maps fields of documents to columns of another name. `without_column`: how many fields of the
    sample have none because there were too many.
    """

    types: Mapping[str, str]
    renamed: Mapping[str, str] = field(default_factory=dict)
    without_column: int = 0

    def to_json(self) -> dict[str, str]:
        """Name → type, as in the checkpoint, the plan and the manifest."""
        return dict(self.types)

    @classmethod
    def from_json(cls, value: Mapping[str, str], renamed: Mapping[str, str] | None = None) -> "Columns":
        """The columns of `to_json`. Raises ValueError for an unknown type."""
        for name, kind in value.items():
            if kind not in get_args(ColumnType):
                raise ValueError(f"column {name!r} has the unknown type {kind!r}")
        return cls(dict(value), renamed or {})

    def features(self) -> list[list[str]]:
        """[path, Hugging Face dtype] of each field of a row, in row order."""
        metadata = [[f"metadata.{name}", _DTYPES[kind]] for name, kind in self.types.items()]
        return [
            ["text", "string"],
            *metadata,
            [f"metadata.{EXTRA}", "string"],
            ["source", "string"],
            ["quality_score", "float64"],
            ["document_id", "string"],
            ["relevance_score", "float64"],
        ]


def infer(documents: Iterable[HasMetadata], at_most: int | None = None) -> Columns:
    """The columns of the fields of documents, by first appearance.

    With more than `at_most` fields, only those have a column that occur in one of 100 documents, and of these
    the most frequent.

    A field with int and float becomes float. Any other mixture becomes string where a string occurs, else it
    has no column. Lists and objects have no column. A field that is always null becomes string.
    """
    kinds_of: dict[str, set[str]] = {}
    occurrences, count = Counter[str](), 0
    for document in documents:
        count += 1
        occurrences.update(document.metadata.keys())
        for name, value in document.metadata.items():
            kinds = kinds_of.setdefault(name, set())
            if value is not None:
                kinds.add(_KINDS.get(type(value), "json"))
    types = {name: kind for name, kinds in kinds_of.items() if (kind := _column(name, kinds)) is not None}
    if at_most is None or len(types) <= at_most:
        return Columns(types)
    frequent = [name for name, times in occurrences.most_common() if name in types and times * _RARE >= count]
    chosen = set(frequent[:at_most])
    kept = {name: kind for name, kind in types.items() if name in chosen}
    return Columns(kept, without_column=len(types) - len(kept))


def distinct(found: Columns) -> Columns:
    """The columns with names that every reader can tell apart. The first of two fields keeps its name."""
    taken, types, renamed = {EXTRA}, dict[str, str](), dict[str, str]()
    for name, kind in found.types.items():
        plain = _CONTROLS.sub("_", name)
        column, number = plain, 1
        while column.casefold() in taken:
            number += 1
            column = f"{plain}_{number}"
        taken.add(column.casefold())
        types[column] = kind
        if column != name:
            renamed[name] = column
    return Columns(types, renamed, found.without_column)


def _column(name: str, kinds: set[str]) -> str | None:
    scalar = kinds - {"json"}
    if name == EXTRA or (kinds and not scalar) or not _storable(name):
        return None
    if len(scalar) <= 1:
        return next(iter(scalar), "string")
    if scalar == {"int", "float"}:
        return "float"
    return "string" if "string" in scalar else None


def declared(wanted: Sequence[str] | Mapping[str, str], found: Columns) -> Columns:
    """The columns that a job names, with its types or the inferred ones. An unknown field is a string."""
    if isinstance(wanted, Mapping):
        return Columns(dict(wanted))
    return Columns({name: found.types.get(name, "string") for name in wanted})


def conform(metadata: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The metadata of a row: each column in order, then `extra`."""
    row: dict[str, Any] = dict.fromkeys(columns.types)
    extra: dict[str, Any] = {}
    types, renamed = columns.types, columns.renamed
    for field_name, value in metadata.items():
        name = _column_of(field_name, renamed) if renamed else field_name
        kind = types.get(name)
        if value is None and kind is not None:
            continue
        if kind is None or not fits(value, kind):
            extra[field_name] = value
        else:
            row[name] = float(value) if kind == "float" else value
    row[EXTRA] = extra_text(extra) if extra else None
    return row


def plain_types(columns: Columns) -> dict[str, type] | None:
    """The Python type of each column, in row order; None when a field may have another name."""
    if columns.renamed or EXTRA in columns.types:
        return None
    return {name: _PYTHON_TYPES[kind] for name, kind in columns.types.items()}


class Conformer:
    """`conform` for the rows of one dataset, as JSON.

    A row whose every field has a column of the same name, and a value of exactly its type, is made without
    the rules for all others; these decide in doubt.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._nulls: dict[str, Any] = {**dict.fromkeys(columns.types), EXTRA: None}
        self._kinds = plain_types(columns) or {}

    def to_json(self, metadata: Mapping[str, Any]) -> bytes:
        """The metadata of a row."""
        row, kinds = self._nulls.copy(), self._kinds
        for name, value in metadata.items():
            kind = kinds.get(name)
            if type(value) is not kind:
                if value is None and kind is not None:
                    continue
                break
            # Also false for NaN, which orjson would write as null.
            if kind is not str and not -_INT64 <= value < _INT64:  # type: ignore[operator]
                break
            row[name] = value
        else:
            try:
                return orjson.dumps(row)
            except orjson.JSONEncodeError:
                # Half of a surrogate pair.
                pass
        return orjson.dumps(conform(metadata, self._columns))


def _column_of(name: str, renamed: Mapping[str, str]) -> str:
    if name in renamed:
        return renamed[name]
    # A field that the sample did not have may have the name of a column that another field was given.
    return "" if name in renamed.values() else name


def fits(value: object, kind: str) -> bool:
    """Whether a value can stand in a column of that type."""
    # In Python bool is a subclass of int; in JSON it is no number.
    if kind == "string":
        return isinstance(value, str) and _storable(value)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64
    if kind == "float":
        return _is_float(value)
    return isinstance(value, bool)


def _is_float(value: object) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    # A float column takes an integer that a float represents exactly.
    return type(value) is int and abs(value) <= _EXACT


def _storable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def extra_text(extra: Mapping[str, Any]) -> str:
    """The fields without a column as the text of the column `extra`."""
    # Unlike orjson, the standard library writes integers of any size. A lone surrogate needs ASCII escapes.
    text = json.dumps(extra, ensure_ascii=False, separators=(",", ":"))
    return text if _storable(text) else json.dumps(extra, ensure_ascii=True, separators=(",", ":"))
