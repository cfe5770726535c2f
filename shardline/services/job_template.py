"""Placeholders in a job file: `${name}` in a string is filled before the job is parsed. Pure.

A job message has no placeholders: the job that is submitted is a job like any other.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from shardline.services.date_range import PLACEHOLDERS, DateRange
from shardline_common.errors import UsageError

_PLACE = re.compile(r"\$(\$?)\{([a-z][a-z0-9_]*)\}")


def fill_job(body: bytes, window: DateRange | None, sets: Sequence[str]) -> bytes:
    """Fill every placeholder of a job's JSON from the window and from each NAME=VALUE of `sets`.

    `$${name}` becomes the text `${name}`. Values are inserted into strings, so they cannot change the
    structure of the job. A body that is no JSON is returned as it is.

    Raises:
        UsageError: a placeholder has no value, or a value has no placeholder.
    """
    try:
        job = orjson.loads(body)
    except orjson.JSONDecodeError:
        # Parsing the job reports where the JSON is broken.
        return body
    values = _sets(sets) | (window.values if window else {})
    used: set[str] = set()
    filled = _fill(job, values, used)
    if unknown := sorted(used - values.keys()):
        places = ", ".join(f"${{{name}}}" for name in unknown)
        raise UsageError(f"the job has no value for {places}", hint=_hint(unknown))
    if window and used.isdisjoint(PLACEHOLDERS):
        hint = "use ${window} in its job_id, and ${from} and ${next} in its filters, or leave out --window"
        raise UsageError("nothing in the job depends on the window", hint=hint)
    if unused := sorted(values.keys() - used - set(PLACEHOLDERS)):
        raise UsageError(f"--set {unused[0]}: the job has no placeholder ${{{unused[0]}}}")
    return orjson.dumps(filled)


def names_days(body: bytes) -> bool:
    """Whether the job uses a day of the window, and not only its name."""
    places = {name for escaped, name in _PLACE.findall(body.decode(errors="replace")) if not escaped}
    return not places.isdisjoint(set(PLACEHOLDERS) - {"window"})


def _sets(sets: Sequence[str]) -> dict[str, str]:
    values = {}
    for text in sets:
        name, found, value = text.partition("=")
        if not found or not _PLACE.fullmatch(f"${{{name}}}"):
            raise UsageError(f"--set {text} is not NAME=VALUE", hint="NAME: a-z, then a-z, 0-9 or _")
        if name in PLACEHOLDERS:
            raise UsageError(f"--set {name}: that is --window's", hint="choose another name")
        values[name] = value
    return values


def _hint(unknown: Sequence[str]) -> str:
    if set(unknown) & set(PLACEHOLDERS):
        return "give --window, such as --window yesterday"
    return f"give --set {unknown[0]}=VALUE; $${{{unknown[0]}}} is the text itself"


def _fill(value: Any, values: Mapping[str, str], used: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _fill(one, values, used) for name, one in value.items()}
    if isinstance(value, list):
        return [_fill(one, values, used) for one in value]
    return _fill_text(value, values, used) if isinstance(value, str) else value


def _fill_text(text: str, values: Mapping[str, str], used: set[str]) -> str:
    def replace(place: re.Match[str]) -> str:
        if place[1]:
            return place[0][1:]
        used.add(place[2])
        return values.get(place[2], "")

    return _PLACE.sub(replace, text)
