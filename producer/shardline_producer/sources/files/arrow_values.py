"""The values of Arrow's types as JSON values. docs/sources.md has the table of types.

No value depends on the version of a library, on pandas or on a database of time zones: pyarrow's own
conversion makes pandas objects of nanoseconds where pandas is installed, and fails where it is not.
"""

import json
import math
import struct
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import orjson

from shardline_producer.sources.documents import parse_json_text
from shardline_producer.sources.field_values import NotFinite
from shardline_producer.sources.files.arrow_times import temporal_text

Convert = Callable[[Any], list[Any]]
"""Makes a list of JSON values of an array. Bytes that are no text stay bytes, see `convert_batch`."""

_INT64 = 1 << 63
_MAX_DEPTH = 100
# The digits that a float of 2 and of 4 bytes has at least and at most, and the least float that has them.
_FLOAT_DIGITS = {16: ("<e", 3, 5, 2.0**-14), 32: ("<f", 6, 9, 2.0**-126)}
# No text has these bytes, as the program `file` decides it.
_NOT_IN_TEXT = bytes([*range(7), *range(14, 27), *range(28, 32), 127])


class InvalidText(bytes):
    """A value of a text column that is not valid UTF-8."""

    __slots__ = ()


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names of columns; one that is there already gets a number that makes it another name."""
    found, given = dict[str, None](), set(names)
    for name in names:
        new, number = name, 2
        while new in found:
            new, number = f"{name}_{number}", number + 1
            if new in given:
                new = name
        found[new] = None
    return list(found)


def to_json(value: object) -> object:
    """A value with each `bytes` in it as base64, and each NaN as text."""
    if isinstance(value, InvalidText):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, NotFinite):
        return str(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(name): to_json(item) for name, item in value.items()}
    return value


def json_bytes(fields: dict[str, Any]) -> tuple[bytes, bool]:
    """The fields of a row as JSON, and whether there is text in it that is not valid UTF-8."""
    broken = False

    def shown(value: object) -> object:
        nonlocal broken
        broken |= isinstance(value, InvalidText)
        return to_json(value)

    try:
        return orjson.dumps(fields, default=shown), broken
    except orjson.JSONEncodeError:
        # A column of JSON has an integer of more than 64 bits.
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=shown)
        return text.encode(), broken


def unsupported_type(kind: Any, depth: int = 0) -> str | None:
    """What of a type is not read; None: all of it is."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    if depth > _MAX_DEPTH:
        return f"nested more than {_MAX_DEPTH} levels deep"
    if pa.types.is_union(kind):
        return str(kind)
    if isinstance(kind, pa.BaseExtensionType):
        return unsupported_type(kind.storage_type, depth)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return unsupported_type(kind.value_type, depth)
    children = (kind.field(number).type for number in range(kind.num_fields))
    return next(
        (found for child in children if (found := unsupported_type(child, depth + 1)) is not None), None
    )


def converter(kind: Any) -> Convert:  # noqa: C901, PLR0911, PLR0912 - one line for each type
    """The conversion of arrays of a type that `unsupported_type` accepts."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(kind)
    if types.is_dictionary(kind):
        value = converter(kind.value_type)
        return lambda array: value(_looked_up(array))
    if types.is_run_end_encoded(kind):
        value = converter(kind.value_type)
        return lambda array: value(_run_end_decoded(array))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _texts
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _binaries
    if types.is_binary_view(kind):
        return lambda array: _binaries(array.cast(pa.large_binary()))
    if types.is_floating(kind):
        return _floats if kind.bit_width == 64 else _small_floats(kind.bit_width)  # noqa: PLR2004
    if types.is_decimal(kind):
        return lambda array: [_decimal(value) for value in array.to_pylist()]
    if (as_text := temporal_text(kind)) is not None:
        return as_text
    if types.is_struct(kind):
        return _structs(kind)
    if types.is_map(kind):
        return _maps(converter(kind.key_type), converter(kind.item_type))
    if types.is_fixed_size_list(kind):
        return _fixed_lists(converter(kind.value_type), kind.list_size)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return _list_views(converter(kind.value_type))
    if types.is_list(kind) or types.is_large_list(kind):
        return _lists(converter(kind.value_type))
    return _as_they_are


def _as_they_are(array: Any) -> list[Any]:
    """Null, truth values and integers."""
    return list(array.to_pylist())


def _looked_up(array: Any) -> Any:
    """The values of an array with a dictionary."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
    import pyarrow.compute as pc  # noqa: PLC0415 - likewise

    indices = array.indices
    try:
        return array.dictionary.take(indices)
    except pa.ArrowIndexError:
        # Inside of a null of a struct or a list, an index may be any number.
        known = pc.and_(pc.greater_equal(indices, 0), pc.less(indices, len(array.dictionary)))
        return array.dictionary.take(pc.if_else(known, indices, pa.scalar(None, indices.type)))


def _run_end_decoded(array: Any) -> Any:
    import pyarrow.compute as pc  # noqa: PLC0415 - an extra, and slow to import

    return pc.run_end_decode(array)


def _extension(kind: Any) -> Convert:
    storage = converter(kind.storage_type)
    match kind.extension_name:
        case "arrow.uuid":
            return lambda array: [
                None if value is None else str(UUID(bytes=value)) for value in array.storage.to_pylist()
            ]
        case "arrow.bool8":
            return lambda array: [
                None if value is None else value != 0 for value in array.storage.to_pylist()
            ]
        case "arrow.json":
            return lambda array: [
                parse_json_text(value) if type(value) is str else value for value in storage(array.storage)
            ]
    return lambda array: storage(array.storage)


def _texts(array: Any) -> list[Any]:
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

        if pa.types.is_string_view(array.type):
            raw = array.cast(pa.binary_view()).cast(pa.large_binary())
        else:
            raw = array.cast(pa.large_binary())
        return [_text(value) for value in raw.to_pylist()]


def _text(value: bytes | None) -> str | InvalidText | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return InvalidText(value)


def _binaries(array: Any) -> list[Any]:
    """Text where the bytes are text: old programs write text without saying so."""
    return [_binary(value) for value in array.to_pylist()]


def _binary(value: bytes | None) -> str | bytes | None:
    if value is None or len(value.translate(None, _NOT_IN_TEXT)) < len(value):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _floats(array: Any) -> list[Any]:
    values = array.to_pylist()
    return [value if value is None or math.isfinite(value) else _not_finite(value) for value in values]


def _not_finite(value: float) -> NotFinite:
    return NotFinite("NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity")


def _small_floats(bits: int) -> Convert:
    """The number with the fewest digits that is this float: 0.7, and not 0.699999988079071."""
    form, fewest, most, least = _FLOAT_DIGITS[bits]

    def shortest(value: float) -> float:
        if value.is_integer():
            return value
        wanted = struct.pack(form, value)
        for digits in range(fewest if abs(value) >= least else 1, most):
            found = float(f"{value:.{digits}g}")
            if struct.pack(form, found) == wanted:
                return found
        return float(f"{value:.{most}g}")

    def convert(array: Any) -> list[Any]:
        return [
            value if value is None else shortest(value) if math.isfinite(value) else _not_finite(value)
            for value in array.to_pylist()
        ]

    return convert


def _decimal(value: Decimal | None) -> int | float | str | None:
    """A number where it keeps every digit, else the digits as text."""
    if value is None:
        return None
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= 0:
        return whole if -_INT64 <= (whole := int(value)) < _INT64 else format(value, "f")
    near = float(value)
    return near if math.isfinite(near) and Decimal(repr(near)) == value else format(value, "f")


def _structs(kind: Any) -> Convert:
    fields = [kind.field(number) for number in range(kind.num_fields)]
    names = distinct_names([field.name for field in fields])
    children = [converter(field.type) for field in fields]

    def convert(array: Any) -> list[Any]:
        if not children:
            return _with_nulls(array, [{} for _ in range(len(array))])
        columns = [child(array.field(number)) for number, child in enumerate(children)]
        rows = zip(*columns, strict=True)
        return _with_nulls(array, [dict(zip(names, row, strict=True)) for row in rows])

    return convert


def _lists(child: Convert) -> Convert:
    def convert(array: Any) -> list[Any]:
        return _with_nulls(array, _cut(array, lambda first, size: child(array.values.slice(first, size))))

    return convert


def _maps(key: Convert, item: Convert) -> Convert:
    def convert(array: Any) -> list[Any]:
        def pairs(first: int, size: int) -> list[Any]:
            keys, items = key(array.keys.slice(first, size)), item(array.items.slice(first, size))
            return list(zip(keys, items, strict=True))

        return _with_nulls(array, [_object(found) for found in _cut(array, pairs)])

    return convert


def _object(pairs: list[tuple[Any, Any]]) -> dict[str, Any] | list[list[Any]]:
    """An object when the keys are distinct texts, numbers or truth values, else a list of pairs."""
    names = [str(key) if isinstance(key, str) else json.dumps(key) for key, _ in pairs if _is_name(key)]
    if len(set(names)) == len(pairs):
        return dict(zip(names, (value for _, value in pairs), strict=True))
    return [list(pair) for pair in pairs]


def _is_name(key: object) -> bool:
    return isinstance(key, str | int | float)


def _fixed_lists(child: Convert, size: int) -> Convert:
    def convert(array: Any) -> list[Any]:
        values = child(array.values.slice(array.offset * size, len(array) * size))
        return _with_nulls(array, [values[at * size : (at + 1) * size] for at in range(len(array))])

    return convert


def _list_views(child: Convert) -> Convert:
    def convert(array: Any) -> list[Any]:
        # The views of an array may be anywhere, and overlap.
        views = zip(
            array.offsets.to_pylist(), array.sizes.to_pylist(), array.is_valid().to_pylist(), strict=True
        )
        return [child(array.values.slice(first, size)) if valid else None for first, size, valid in views]

    return convert


def _cut(array: Any, values_of: Callable[[int, int], list[Any]]) -> Iterator[list[Any]]:
    """The values of each list of an array of lists."""
    if not len(array):
        return
    ends = array.offsets.to_pylist()
    first = ends[0]
    values = values_of(first, ends[-1] - first)
    for start, end in pairwise(ends):
        yield values[start - first : end - first]


def _with_nulls(array: Any, values: Iterator[Any] | list[Any]) -> list[Any]:
    if not array.null_count:
        return list(values)
    valid = array.is_valid().to_pylist()
    return [value if there else None for value, there in zip(values, valid, strict=True)]
