"""Ids of documents in SQL: read as text, compared and ordered by their bytes. Pure.

The bytes count whatever the type and the collation of the column: two ids are one document only if their
texts are the same. A comparison also has a form that the column's own index serves, because a lookup of each
id would otherwise read the whole table.
"""

from enum import StrEnum
from typing import Protocol


class KeyKind(StrEnum):
    """How the ids of a column are compared. The values are stored in plans."""

    TEXT = "text"
    PADDED = "padded"
    FOLDED = "folded"
    UUID = "uuid"
    INTEGER = "integer"
    NUMERIC = "numeric"
    OTHER = "other"


KEY_TYPES = "text, varchar, char, citext, name, enum, uuid, smallint, integer, bigint or numeric"
_BY_TYPE = {
    "text": KeyKind.TEXT,
    "varchar": KeyKind.TEXT,
    "bpchar": KeyKind.PADDED,
    "citext": KeyKind.FOLDED,
    "name": KeyKind.OTHER,
    "uuid": KeyKind.UUID,
    "int2": KeyKind.INTEGER,
    "int4": KeyKind.INTEGER,
    "int8": KeyKind.INTEGER,
    "numeric": KeyKind.NUMERIC,
}
_UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_INTEGER = "^(0|-?[1-9][0-9]{0,18})$"
_INT64 = (-(1 << 63), (1 << 63) - 1)
_NUMERIC = "^(-?[0-9]{1,255}([.][0-9]{1,255})?|NaN|-?Infinity)$"


def key_kind(type_name: str, category: str) -> KeyKind | None:
    """How ids of a type are compared; None if its values are no ids.

    A domain has the type that it is over. The text of dates, floats, money, bytes and JSON depends on
    settings or is not the only one of a value, so they are refused.
    """
    if (found := _BY_TYPE.get(type_name)) is not None:
        return found
    # Enums, and string types of extensions.
    return KeyKind.OTHER if category in "ES" else None


class KeyColumn(Protocol):
    """The column of ids of a table. `key`, `key_type`, `key_schema` and `collation` are quoted."""

    @property
    def key(self) -> str:
        """Its name."""

    @property
    def key_kind(self) -> KeyKind:
        """How its ids are compared."""

    @property
    def key_type(self) -> str:
        """Its type; of a domain, the type that it is over."""

    @property
    def key_schema(self) -> str:
        """The schema of the type."""

    @property
    def collation(self) -> str:
        """Its collation; empty if it has none."""

    @property
    def deterministic(self) -> bool:
        """Whether the collation calls only the same bytes equal."""

    @property
    def bytewise(self) -> bool:
        """Whether the column's own order is that of the bytes of its texts."""


def id_text(column: KeyColumn, alias: str) -> str:
    """The id of a row as text."""
    name = f"{alias}.{column.key}"
    return name if column.key_kind == KeyKind.TEXT else f"{name}::text"


def id_bytes(column: KeyColumn, alias: str) -> str:
    """The expression by which ids are ordered and grouped."""
    return f"{alias}.{column.key}" if column.bytewise else f'{id_text(column, alias)} COLLATE "C"'


def listed_id(column: KeyColumn, alias: str) -> str:
    """The id as text in a statement that groups by `id_bytes`."""
    # A cast of the collated expression would be another expression than that of GROUP BY.
    return id_text(column, alias) if column.bytewise else id_bytes(column, alias)


def id_cast(column: KeyColumn) -> str:
    """The type of a value that is compared with `id_bytes`."""
    return "uuid" if column.bytewise and column.key_kind == KeyKind.UUID else "text"


def has_id(column: KeyColumn, alias: str, value: str) -> str:
    """The condition that the id of a row is `value`, an expression of type text, byte for byte."""
    exact = column.key_kind in (KeyKind.UUID, KeyKind.INTEGER)
    exact = exact or (column.key_kind == KeyKind.TEXT and column.deterministic)
    same_bytes = f'{id_text(column, alias)} COLLATE "C" = ({value}) COLLATE "C"'
    indexed = _equality_of_type(column, f"{alias}.{column.key}", value)
    return " AND ".join(part for part in (indexed, "" if exact else same_bytes) if part)


def _equality_of_type(column: KeyColumn, name: str, value: str) -> str:
    """The equality of the column's type, which is true for the same bytes at least; empty if it has none."""
    # The collation is that of the column. With any other one the server would not use the column's index.
    collate = f" COLLATE {column.collation}" if column.collation else ""
    match column.key_kind:
        case KeyKind.TEXT:
            return f"{name} = ({value}){collate}"
        case KeyKind.PADDED:
            return f"{name} = ({value})::{column.key_type}{collate}"
        case KeyKind.FOLDED:
            # The operator of citext is not in the search path of the session.
            return f"{name} OPERATOR({column.key_schema}.=) ({value})::{column.key_type}{collate}"
        case KeyKind.UUID:
            other = _cast(value, _UUID, "uuid")
        case KeyKind.INTEGER:
            lowest, highest = _INT64
            number = f"CASE WHEN ({value})::numeric BETWEEN {lowest} AND {highest} THEN ({value})::int8 END"
            other = f"CASE WHEN {_is_like(value, _INTEGER)} THEN {number} END"
        case KeyKind.NUMERIC:
            other = _cast(value, _NUMERIC, "numeric")
        case KeyKind.OTHER:
            return ""
    return f"{name} = {other}"


def _cast(value: str, pattern: str, type_name: str) -> str:
    # Ids of other stores and tables may be any text. A cast of one that is no value of the type would fail.
    return f"CASE WHEN {_is_like(value, pattern)} THEN ({value})::{type_name} END"


def _is_like(value: str, pattern: str) -> str:
    return f"({value}) COLLATE \"C\" ~ '{pattern}'"
