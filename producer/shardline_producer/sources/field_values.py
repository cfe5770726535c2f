"""The values that a job's field mapping names in a document: found, printed, removed and lifted. Pure."""

import json
import math
from dataclasses import dataclass
from typing import Any

from shardline_common.job.field_mapping import (
    GENERATED_IDS,
    Part,
    Path,
    is_template,
    parse_reference,
    parse_template,
    reference,
)
from shardline_common.job.spec import FilesSource

MISSING = object()
"""The value of a field that a document does not have. One that is null has None."""


class NotFinite(str):
    """NaN or an infinity of a table. It is shown as text, and is no id, no text and nothing in a template.

    pandas writes NaN where a value is missing: each document without a text would be the text `NaN`.
    """

    __slots__ = ()


class TemplateField(Exception):
    """A field of the template cannot be printed: it is missing or null, or no text, number or boolean."""

    def __init__(self, path: Path, *, missing: bool) -> None:
        super().__init__(reference(path))
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Lift:
    """A nested value that becomes a field at the top: `name`, or `full_name` where a field has that name."""

    path: Path
    name: str
    full_name: str


@dataclass(frozen=True, slots=True)
class MappedFields:
    """A field mapping, compiled once for a job.

    `identity` is None when `generated` says what ids are made of (`hash` or `line`). `text` is None when
    there is a template. `removed` are the paths of all fields that do not stay where they are, in an order in
    which no removal moves the value of another one.
    """

    identity: Path | None
    generated: str
    text: Path | None
    template: tuple[Part, ...]
    score: Path
    removed: tuple[Path, ...]
    lifts: tuple[Lift, ...]


def compile_mapping(source: FilesSource) -> MappedFields:
    """The mapping of a job over files."""
    fields = source.fields
    generated = fields.id if fields.id in GENERATED_IDS else ""
    identity = None if generated else parse_reference(fields.id)
    template = parse_template(fields.text) if is_template(fields.text) else ()
    text = None if template else parse_reference(fields.text)
    # A template of one field and nothing else is that field.
    whole = template[0] if len(template) == 1 else text
    score, lifts = parse_reference(fields.score), _lifts(source)
    removed = {
        path for path in (identity, whole, score, *(one.path for one in lifts)) if isinstance(path, tuple)
    }
    return MappedFields(identity, generated, text, template, score, _in_order(removed), lifts)


def _in_order(paths: set[Path]) -> tuple[Path, ...]:
    # What is in a value before the value, and of one list the last index first.
    return tuple(sorted(paths, key=lambda path: [(_index(name), name) for name in path], reverse=True))


def _lifts(source: FilesSource) -> tuple[Lift, ...]:
    found: list[Lift] = []
    for pointer in source.flatten:
        path = parse_reference(pointer)
        name, full = path[-1], "_".join(path)
        # The name of a column must not depend on which of two values a document has.
        found.append(Lift(path, full if any(one.name == name for one in found) else name, full))
    return tuple(found)


def value_at(fields: dict[str, Any], path: Path) -> Any:
    """The value at a path; MISSING when there is none."""
    value: Any = fields
    for name in path:
        value = _child(value, name)
    return value


def _child(value: Any, name: str) -> Any:
    if type(value) is dict:
        return value.get(name, MISSING)
    if type(value) is list and 0 <= (index := _index(name)) < len(value):
        return value[index]
    return MISSING


def _index(name: str) -> int:
    """The index of a list that a name is, else -1. RFC 6901 has no leading zeros."""
    plain = name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")
    # Python refuses to convert thousands of digits; no list is that long.
    return int(name) if plain and len(name) < 19 else -1  # noqa: PLR2004 - digits of 64 bits


def take(fields: dict[str, Any], mapping: MappedFields, *, scored: bool) -> None:
    """Remove id, text and, when it is `scored`, the score; then move lifted values to the top.

    An object or list that this leaves empty is removed too.
    """
    values = [(one, value_at(fields, one.path)) for one in mapping.lifts]
    for path in mapping.removed:
        if scored or path != mapping.score:
            _remove(fields, path)
    for one, value in values:
        if value is not MISSING:
            fields[_free_name(fields, one)] = value


def _remove(fields: dict[str, Any], path: Path) -> None:
    parents: list[tuple[Any, Any]] = []
    value: Any = fields
    for name in path:
        parents.append((value, _index(name) if type(value) is list else name))
        value = _child(value, name)
        if value is MISSING:
            return
    while parents:
        parent, key = parents.pop()
        del parent[key]
        if parent:
            return


def _free_name(fields: dict[str, Any], one: Lift) -> str:
    name, number = one.name, 1
    while name in fields:
        name = one.full_name if number == 1 else f"{one.full_name}_{number}"
        number += 1
    return name


def printed(fields: dict[str, Any], template: tuple[Part, ...]) -> str:
    """The text of a template: texts as they are, numbers and booleans as JSON prints them.

    Raises:
        TemplateField: a field of it cannot be printed.
    """
    return "".join(part if type(part) is str else _printed(fields, part) for part in template)  # type: ignore[arg-type]


def _printed(fields: dict[str, Any], path: Path) -> str:
    value = value_at(fields, path)
    if type(value) is str:
        return value
    if value is MISSING or value is None:
        raise TemplateField(path, missing=True)
    if isinstance(value, dict | list) or (isinstance(value, float) and not math.isfinite(value)):
        raise TemplateField(path, missing=False)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise TemplateField(path, missing=False)
