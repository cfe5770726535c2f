"""The requests about a job that was submitted before."""

from typing import Annotated, Literal

import orjson
from pydantic import Field

from shardline_common.job.spec_model import Model

JOB_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"


class Request(Model):
    """A request about a job that was submitted before, on the same topic and with the same key."""

    version: Annotated[Literal[1], Field(description="The version of this message format.", examples=[1])] = 1
    job_id: Annotated[
        str, Field(pattern=JOB_ID, description="The job that is meant.", examples=["baurecht-2026-11"])
    ]
    action: Annotated[
        Literal["cancel", "retry", "delete"],
        Field(
            description="`cancel` stops the job, `retry` starts a new attempt of a failed or cancelled one, "
            "`delete` removes its dataset, topics and dead letters.",
            examples=["retry"],
        ),
    ]
    requested_by: Annotated[
        Annotated[str, Field(max_length=200)] | None,
        Field(description="Who asks; the message of a cancelled job names them.", examples=["m.huber"]),
    ] = None
    versions: Annotated[
        bool,
        Field(
            description="`delete` also removes the versions that a bucket with versioning keeps, where the "
            "store allows it.",
            examples=[True],
        ),
    ] = False

    def body(self) -> bytes:
        """The message's bytes."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
