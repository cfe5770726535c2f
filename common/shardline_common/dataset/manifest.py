"""A manifest as it is read again: by `verify`, which trusts nothing in it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shardline_common.dataset.chain import Count
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.columns import Columns
from shardline_common.job.spec import JobSpec, first_fault


class _Part(BaseModel):
    # Fields that a later version adds are no fault; those that are here are of exactly these types.
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Produced(_Part):
    """What the producer sent to a partition; the hash sum in hexadecimal."""

    partition: Count
    messages: Count
    hash_sum: str


class SourceCount(_Part):
    """The source's own count of documents."""

    count: Count


class Schema(_Part):
    """The metadata columns and their types."""

    columns: dict[str, str]

    @field_validator("columns")
    @classmethod
    def _are_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return Columns.from_json(value).to_json()


class Manifest(_Part):
    """The parts of a manifest that prove something. Shards and totals are compared as a whole."""

    job: JobSpec = Field(strict=False)
    digest: str
    source: SourceCount
    partitions: list[Produced]
    rows_schema: Schema = Field(alias="schema")
    shards: list[dict[str, Any]]
    totals: dict[str, Any]
    splits: dict[str, dict[str, Any]]
    rejected: dict[str, int]
    dead_letters: dict[str, int]

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """The manifest of its JSON.

        Raises:
            JobFailed: it is none; the message names the first field that is wrong.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            where, what = first_fault(error)
            raise JobFailed(
                FailureCode.CONSERVATION,
                f"manifest.json cannot be read: {where or 'the file'}: {what}",
            ) from None
