"""Read the JSON of a record that a process of Shardline stored."""

from typing import TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.field_faults import first_fault

T = TypeVar("T")


def read_stored(reader: TypeAdapter[T], body: bytes, what: str, hint: str | None = None) -> T:
    """The value of a stored record. Whatever is returned can be written as JSON again.

    Raises:
        JobFailed: the bytes are no such record (`dataset_damaged`). The message names `what`, the first wrong
            field and the fault.
    """
    try:
        # Pydantic reads NaN and integers of any length, which no writer of these records can have written.
        return reader.validate_json(orjson.dumps(orjson.loads(body)), strict=True)
    except orjson.JSONDecodeError as error:
        message = f"{what} cannot be read: {error}"
    except ValidationError as error:
        where, fault = first_fault(error)
        message = f"{what} cannot be read: {where or 'the file'}: {fault}"
    raise JobFailed(FailureCode.DATASET_DAMAGED, message, hint=hint)
