"""JSON that a store returned: one odd value spoils no other.

A number that no float holds is its text, integers keep every digit, and a list or object of more than 100
levels is its text. What a value becomes does not depend on the others of its answer.
"""

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import orjson

from shardline_common.runtime.threads import run_in_thread

MAX_DEPTH = 100
_PARSED_ON_THREAD = 1 << 16
_INT64 = 1 << 63
# Python refuses integers of more than 4,300 digits.
_MAX_DIGITS = 4000
_ROW_VALUES = 2
# A document's field is at the fifth level of an answer of CouchDB, a field of its metadata at the sixth.
_ANSWER_VALUES = 6
_PRINTED = (repr, "{:.16g}".format, "{:.17g}".format)
# Whatever may be a number that orjson changes or refuses.
_LONG_NUMBER = re.compile(r"[0-9.]{17}|[eE][+-]?[0-9]{3}")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def parse_row(text: str) -> dict[str, Any]:
    """The fields of a row that a database shows as a JSON object. Raises ValueError when it is none.

    A decimal number that a float would round is its text too: databases have exact ones.
    """
    shallow = _with_deep_values_as_text(text, _ROW_VALUES)
    if shallow is text and not _LONG_NUMBER.search(text):
        try:
            return _object(orjson.loads(text))
        except orjson.JSONDecodeError:
            # Half of a surrogate pair: the columns decide where it goes.
            pass
    return _object(_loads(shallow, _exact_float))


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError("it is no JSON object")
    found: dict[str, Any] = value
    return found


def parse_answer(body: bytes, *, any_bytes: bool = False) -> Any:
    """The JSON of an answer over HTTP. Raises ValueError.

    orjson refuses half of a surrogate pair, a number that no float holds, and more than 1,024 levels, and
    makes a float of an integer of more than 64 bits. Otherwise one such value would make a whole answer
    unreadable. `any_bytes`: a byte that is not UTF-8 is half of a surrogate pair (U+DC80 to U+DCFF), so that
    the document that has it is refused, and no other.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    else:
        if not _is_changed(value):
            return value
    text = body.decode(errors="surrogateescape" if any_bytes else "strict")
    return _loads(_with_deep_values_as_text(text, _ANSWER_VALUES), _finite_float)


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode a text: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def parse_on_thread(body: bytes, *, any_bytes: bool = False) -> Any:
    """As `parse_answer`; a body over 64 KiB is parsed on a thread."""
    parse = partial(parse_answer, body, any_bytes=any_bytes)
    return parse() if len(body) < _PARSED_ON_THREAD else await run_in_thread(parse)


def _loads(text: str, parse_float: Callable[[str], float | str]) -> Any:
    try:
        return json.loads(
            text, parse_int=_parse_int, parse_float=parse_float, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _parse_int(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _finite_float(digits: str) -> float | str:
    value = float(digits)
    return value if math.isfinite(value) else digits


def _exact_float(digits: str) -> float | str:
    """The float, if a program that has it prints these digits; else the digits."""
    value = float(digits)
    # As PostgreSQL prints its own floats, of which a vector has hundreds.
    if repr(value) == digits:
        return value
    if value == 0:
        mantissa = re.split("[eE]", digits)[0]
        return digits if re.search("[1-9]", mantissa) else value
    if not math.isfinite(value):
        return digits
    exact = Decimal(digits)
    return value if any(Decimal(printed(value)) == exact for printed in _PRINTED) else digits


def _is_changed(value: Any) -> bool:
    """Whether orjson may have rounded an integer, or the value is nested too deep."""
    level: list[Any] = [[value]]
    depth = 0
    while level:
        # The containers in `level` have the depth `depth`; the value itself has 1.
        inner: list[Any] = []
        for container in level:
            values = container.values() if type(container) is dict else container
            kinds = set(map(type, values))
            if float in kinds and any(abs(one) >= _INT64 for one in values if type(one) is float):
                return True
            if dict in kinds or list in kinds:
                inner += [one for one in values if type(one) in (dict, list)]
        if inner and depth >= MAX_DEPTH:
            return True
        level, depth = inner, depth + 1
    return False


def _with_deep_values_as_text(text: str, level: int) -> str:
    """JSON in which each list or object at this level that is nested too deep is a string of its text."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return text
    parts: list[str] = []
    depth = deepest = start = done = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if (char := found[0]) in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
            if depth == level:
                start, deepest = found.start(), depth
        elif char in ("]", "}"):
            if depth == level and deepest > MAX_DEPTH:
                parts += [text[done:start], json.dumps(text[start : found.end()])]
                done = found.end()
            depth -= 1
    return text if not parts else "".join([*parts, text[done:]])
