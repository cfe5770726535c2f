"""What a job may have, made from the code: its JSON Schema, and a line about each field."""

from typing import Any

from shardline_common.job.expected import Place, place_of
from shardline_common.job.spec import JobSpec

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def job_schema() -> dict[str, Any]:
    """The JSON Schema of a job message."""
    return JobSpec.model_json_schema() | {"$schema": _DRAFT}


def job_fields() -> list[tuple[str, str, str]]:
    """Path, accepted values and meaning of each field, in the order of the message."""
    return _fields(place_of(JobSpec), "")


def _fields(place: Place, above: str) -> list[tuple[str, str, str]]:
    found = []
    model = place.model
    for name, field in place.fields.items():
        path = f"{above}{name}"
        info = next(
            (one for key, one in (model.model_fields if model else {}).items() if name in (one.alias, key)),
            None,
        )
        found.append((path, field.text, (info.description if info else None) or ""))
        for branch in field.branches if field.is_union else [field]:
            found += _fields(branch, f"{path}.")
    return list({row[0]: row for row in reversed(found)}.values())[::-1]
