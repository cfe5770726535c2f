"""Whether two job messages are the same job, and in which fields they differ. Pure."""

from collections.abc import Iterator
from typing import Any

import orjson

from shardline_common.errors import JobConflict
from shardline_common.job.spec import JobSpec, default_job_id

_MAX_NAMED = 12
_MAX_NAME = 100


def differing_fields(first: JobSpec, second: JobSpec) -> list[str]:
    """The paths of the fields that differ, sorted, with dots between names. A list is one field.

    Two sources of different types differ in `source`. Empty when the bodies are equal.
    """
    one, other = first.model_dump(mode="json"), second.model_dump(mode="json")
    if first.source.type != second.source.type:
        one["source"], other["source"] = first.source.type, second.source.type
    return sorted(set(_differences(one, other, "")))


def _differences(one: dict[str, Any], other: dict[str, Any], path: str) -> Iterator[str]:
    for name in one.keys() | other.keys():
        # A dump lacks a later field that is at its default.
        ours, theirs = one.get(name), other.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differences(ours, theirs, f"{path}{name}.")
        elif (name in one) != (name in other) or orjson.dumps(ours) != orjson.dumps(theirs):
            yield f"{path}{name}"


def check_same_job(known: JobSpec, spec: JobSpec) -> None:
    """Return if `spec` is the job `known`, which has its id.

    Raises:
        JobConflict: the bodies differ; the message and `fields` name the fields.
    """
    if known.body() == spec.body():
        return
    fields = differing_fields(known, spec)
    # The names of labels and of metadata columns are the user's, of any length.
    named = ", ".join(field[:_MAX_NAME] for field in fields[:_MAX_NAMED])
    if len(fields) > _MAX_NAMED:
        named += f" and {len(fields) - _MAX_NAMED} more"
    raise JobConflict(
        f"the job id '{spec.job_id}' was accepted before with another body, which differs in {named}",
        hint=f"the first job is untouched; {own_id_advice(spec)}",
        fields=tuple(fields),
    )


def own_id_advice(spec: JobSpec) -> str:
    """How to give a job an id of its own. One whose id was made from the spec has left it out already."""
    made = spec.job_id == default_job_id(spec)
    return "give it a job_id" if made else "choose another job_id, or leave it out"
