"""The base of a job's parts, and the rule by which a new field leaves older jobs as they were."""

from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

# The fields of version 0.1. This set never grows. A field that is not in it is left out of every dump while
# it is at its default. If a new field were added here, jobs that do not use it would get another digest and
# another body: a killed `run` without job_id would not resume after an upgrade, the same job submitted again
# would be refused, and processes of the version before, which refuse unknown fields, could not read the job.
_FIELDS_OF_0_1 = {
    "JobSpec": "version job_id name source query quality format output partitions max_document_bytes "
    "submitted_by purpose labels",
    "FilesSource": "type paths",
    "Uds3Source": "type degrade hops",
    "ThemisSource": "type table key theme domain subject from_date to_date lossless",
    "Query": "text top_k filters search_types weights",
    "Range": "gte lte",
    "Quality": "min_score relevance keep_rejected max_dead_letters",
    "Format": "type metadata",
    "Output": "compression shard_bytes validation_fraction group_by",
    "Request": "version job_id action requested_by",
}
FIELDS_OF_0_1 = frozenset(
    f"{model}.{name}" for model, names in _FIELDS_OF_0_1.items() for name in names.split()
)


class Model(BaseModel):
    """The base of a job's parts: unknown fields are refused, and an instance cannot be changed.

    A dump has the fields of version 0.1, and of the later ones those that are not at their default. A field
    that tells the types of a union apart has no default: left out, the dump could not be read again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _dump_used_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        for name in _later_fields(type(self)):
            field = type(self).model_fields[name]
            default = field.get_default(call_default_factory=True, validated_data=self.__dict__)
            if _same(getattr(self, name), default):
                dumped.pop(name, None)
                dumped.pop(field.serialization_alias or name, None)
        return dumped


@cache
def _later_fields(model: type[Model]) -> tuple[str, ...]:
    """The fields of a model that version 0.1 did not have. A subclass has those of its bases."""
    bases = [base.__name__ for base in model.__mro__]
    return tuple(
        name for name in model.model_fields if not any(f"{base}.{name}" in FIELDS_OF_0_1 for base in bases)
    )


def _same(value: object, default: object) -> bool:
    # In Python True equals 1, in JSON it does not.
    if isinstance(value, dict) and isinstance(default, dict):
        return value.keys() == default.keys() and all(_same(value[key], default[key]) for key in value)
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return len(value) == len(default) and all(map(_same, value, default))
    return isinstance(value, bool) == isinstance(default, bool) and value == default
