"""The arguments of the Python API: a job, and settings that override the environment."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self, TypeAlias

import orjson
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticUseDefault

from shardline.services.job_defaults import job_defaults
from shardline_common.errors import JobInvalid
from shardline_common.job.spec import JOB_ID, JobSpec, default_job_id, parse_job
from shardline_common.settings.load import Settings, load_settings

_log = logging.getLogger("shardline")


class Job(JobSpec):
    """A dataset job (docs/job.md). Without `job_id` it gets the same id as on the command line.

    Raises:
        pydantic.ValidationError: a field is unknown or has a value that is not allowed.
    """

    job_id: Annotated[str, Field(pattern=JOB_ID)] = ""

    @field_validator("job_id", mode="before")
    @classmethod
    def _null_is_no_id(cls, value: object) -> object:
        if value is None:
            raise PydanticUseDefault
        return value

    @model_validator(mode="after")
    def _has_an_id(self) -> Self:
        if not self.job_id:
            # The model is frozen, and pydantic has no default that depends on later fields.
            object.__setattr__(self, "job_id", default_job_id(self))
        return self


JobLike: TypeAlias = Job | Mapping[str, object]


def spec_of(job: JobLike, settings: Settings) -> JobSpec:
    """Return the validated job message. `settings` give values to fields that the job leaves out.

    Raises:
        JobInvalid: the job does not fit the schema, or has a value that JSON cannot represent.
    """
    defaults = job_defaults(settings)
    if isinstance(job, Job):
        # Its dump leaves later fields out at their default. A setting must not replace what the user gave.
        defaults = {name: value for name, value in defaults.items() if name not in job.model_fields_set}
    body = job.model_dump(mode="json") if isinstance(job, Job) else dict(job)
    try:
        text = orjson.dumps(body, default=_json_value)
    except TypeError as error:
        raise JobInvalid(f"the job is no JSON: {error}") from None
    return parse_job(text, default_id=True, defaults=defaults)


def _json_value(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value).__name__)


def settings_of(settings: Mapping[str, object] | None) -> Settings:
    """Load the settings as a command does; `settings` override the environment.

    Raises:
        UsageError: a setting is unknown, or its value is not allowed.
    """
    loaded = load_settings(settings, flags_name="settings")
    for warning in (*loaded.warnings, *loaded.short_secrets):
        _log.warning("%s", warning)
    return loaded.settings
