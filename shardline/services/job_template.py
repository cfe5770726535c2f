"""Placeholders in a job file: `${name}` in a string is filled before the job is parsed. Pure.

A job message has no placeholders: the job that is submitted is a job like any other.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from shardline.services.date_range import PLACEHOLDERS, DateRange
from shardline_common.errors import UsageError

_PLACEHOLDER = re.compile(r"\$(\$?)\{([a-z][a-z0-9_]*)\}")
_COMMENT = re.compile(rb'"(?:[^"\\]|\\.)*"|(?P<comment>//[^\n]*|/\*.*?\*/)', re.DOTALL)
_UPPER_BOUNDS = ("lte", "to_date")


def without_comments(body: bytes) -> bytes:
    """A job file without its comments: `//` to the end of a line, and `/*` to `*/`, outside of strings.

    Blanks take their place, so the positions in errors stay those of the file.
    """
    return _COMMENT.sub(lambda found: _blanked(found) if found["comment"] else found[0], body)


def _blanked(found: re.Match[bytes]) -> bytes:
    return re.sub(rb"[^\n]", b" ", found[0])


def fill_job(body: bytes, date_range: DateRange | None, sets: Sequence[str]) -> bytes:
    """Fill every placeholder of a job's JSON from the date range and from each NAME=VALUE of `sets`.

    `$${name}` becomes the text `${name}`. Values are inserted into strings, so they cannot change the
    structure of the job. A body that is not JSON is returned unchanged.

    Raises:
        UsageError: a placeholder has no value, or a value has no placeholder; or an upper bound is the day
            after the date range.
    """
    try:
        job = orjson.loads(body)
    except orjson.JSONDecodeError:
        # `parse_job` reports the position of the error.
        return body
    values = _parse_sets(sets) | (date_range.values if date_range else {})
    _check_upper_bounds(job)
    used: set[str] = set()
    filled = _fill(job, values, used)
    if unknown := sorted(used - values.keys()):
        placeholders = ", ".join(f"${{{name}}}" for name in unknown)
        raise UsageError(f"the job has no value for {placeholders}", hint=_hint(unknown))
    if date_range and used.isdisjoint(PLACEHOLDERS):
        hint = "use ${window} in its job_id, and ${from} and ${to} in its filters, or leave out --window"
        raise UsageError("nothing in the job depends on the window", hint=hint)
    if unused := sorted(values.keys() - used - set(PLACEHOLDERS)):
        raise UsageError(f"--set {unused[0]}: the job has no placeholder ${{{unused[0]}}}")
    return orjson.dumps(filled)


def with_validation_fraction(body: bytes, share: float) -> bytes:
    """A job's JSON with another `output.validation_fraction`. What is no job is returned unchanged."""
    try:
        job = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    output = job.get("output") or {} if isinstance(job, dict) else None
    if not isinstance(output, dict):
        # `parse_job` says what is wrong.
        return body
    return orjson.dumps(job | {"output": output | {"validation_fraction": share}})


def _check_upper_bounds(value: Any) -> None:
    """Refuse the day after the range: an upper bound that is a day includes it, and so would two exports."""
    if isinstance(value, list):
        for item in value:
            _check_upper_bounds(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in _UPPER_BOUNDS and item == "${next}":
                raise UsageError(
                    f'"{name}": "${{next}}" includes the day after the window',
                    hint=f'write "{name}": "${{to}}", which includes the whole last day',
                )
            _check_upper_bounds(item)


def uses_dates(body: bytes) -> bool:
    """Whether the job has a placeholder for a date of the range, and not only for its name."""
    names = {name for escaped, name in _PLACEHOLDER.findall(body.decode(errors="replace")) if not escaped}
    return not names.isdisjoint(set(PLACEHOLDERS) - {"window"})


def _parse_sets(sets: Sequence[str]) -> dict[str, str]:
    values = {}
    for text in sets:
        name, found, value = text.partition("=")
        if not found or not _PLACEHOLDER.fullmatch(f"${{{name}}}"):
            hint = "give a NAME of a-z, 0-9 and _ that begins with a letter"
            raise UsageError(f"--set {text} is not NAME=VALUE", hint=hint)
        if name in PLACEHOLDERS:
            raise UsageError(f"--set {name}: the name is reserved for --window", hint="choose another name")
        values[name] = value
    return values


def _hint(unknown: Sequence[str]) -> str:
    if set(unknown) & set(PLACEHOLDERS):
        return "give --window, such as --window yesterday"
    return f"give --set {unknown[0]}=VALUE; $${{{unknown[0]}}} is the text itself"


def _fill(value: Any, values: Mapping[str, str], used: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _fill(item, values, used) for name, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, values, used) for item in value]
    return _fill_text(value, values, used) if isinstance(value, str) else value


def _fill_text(text: str, values: Mapping[str, str], used: set[str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        used.add(match[2])
        return values.get(match[2], "")

    return _PLACEHOLDER.sub(replace, text)
