"""The metadata of a row: values of the common types as the driver decodes them, the others as JSON. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardline_producer.sources.documents import parse_metadata
from shardline_producer.sources.exact_json import parse_row
from shardline_producer.sources.uds3.postgres.fields import FieldExpression, metadata_fields
from shardline_producer.sources.uds3.postgres.schema import SCORE, PostgresSchema

# By type and kind, the type that the driver decodes. Its values are those that JSON shows, except floats.
_DECODED = {
    ("text", "string"): "text",
    ("varchar", "string"): "text",
    ("int2", "int"): "int8",
    ("int4", "int"): "int8",
    ("int8", "int"): "int8",
    ("bool", "bool"): "bool",
    ("float8", "float"): "float8",
}
# A statement returns 1,664 columns at most.
_MOST_DECODED = 200
# PostgreSQL prints whole floats from here on with an exponent, so in JSON they are no integers.
_LEAST_EXPONENT = 1e15


@dataclass(frozen=True, slots=True)
class RowFields:
    """The metadata fields of a row, in the order of `names`.

    `columns` selects them: JSON, then the decoded ones. `labels` are the names of these columns.
    """

    names: tuple[str, ...]
    columns: str
    labels: str
    decoded: tuple[str, ...]
    floats: tuple[int, ...]
    kinds: tuple[str, ...]
    exact: bool

    @classmethod
    def of(cls, schema: PostgresSchema) -> "RowFields":
        """The fields of a schema. Those of a plan of before are all JSON, so its rows are as they were."""
        fields = metadata_fields(schema)
        types = {name: found for name, field in fields.items() if (found := _decoded_type(field)) is not None}
        decoded = tuple(types)[:_MOST_DECODED] if schema.exact else ()
        chosen = ", ".join(
            f"{item.shown} AS {item.label}" for name, item in fields.items() if name not in decoded
        )
        json = f"(SELECT row_to_json(m)::text FROM (SELECT {chosen}) m)" if chosen else "NULL::text"
        values = [f"({fields[name].values[0].sql})::{types[name]} AS v{n}" for n, name in enumerate(decoded)]
        return cls(
            tuple(fields),
            ", ".join([f"{json} AS metadata", *values]),
            ", ".join(["metadata", *(f"v{number}" for number in range(len(decoded)))]),
            decoded,
            tuple(number for number, name in enumerate(decoded) if types[name] == "float8"),
            tuple(fields[name].kind for name in decoded),
            schema.exact,
        )

    @property
    def plain(self) -> Mapping[str, str] | None:
        """The names and types of all fields, if each is decoded; None if a row has others."""
        if self.names != self.decoded or SCORE in self.names:
            return None
        return dict(zip(self.names, self.kinds, strict=True))

    def values(self, json: str | None, decoded: Sequence[Any]) -> dict[str, Any]:
        """The metadata of a row that is not null. `json` is None if all fields are decoded."""
        if self.floats:
            shown = list(decoded)
            for number in self.floats:
                if shown[number] is not None:
                    shown[number] = _shown(shown[number])
            decoded = shown
        if json is None:
            if None not in decoded:
                return dict(zip(self.decoded, decoded, strict=True))
            found = zip(self.decoded, decoded, strict=True)
            return {name: value for name, value in found if value is not None}
        every = parse_row(json) if self.exact else parse_metadata(json)
        every.update(zip(self.decoded, decoded, strict=True))
        # In the order of the tables: what has no column in the rows is written in the order of the metadata.
        return {name: every[name] for name in self.names if every.get(name) is not None}


def _decoded_type(field: FieldExpression) -> str | None:
    [first, *others] = field.values
    return None if others else _DECODED.get((first.base, first.kind))


def _shown(value: float) -> float | int | str:
    """A float as JSON shows it: 5.0 is 5, and what is no number is its name."""
    if value.is_integer():
        return int(value) if abs(value) < _LEAST_EXPONENT else value
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
