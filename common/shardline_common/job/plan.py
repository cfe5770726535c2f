"""A job's plan: the source and the columns, frozen before the first message."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.columns import Columns
from shardline_common.job.names import Layout
from shardline_common.job.spec import unreadable
from shardline_common.ports.store import ObjectStore


@dataclass(slots=True)
class Plan:
    """`frozen` identifies the source (`Source.freeze`); `columns` maps metadata columns to their types.

    `notes` go into manifest and status: facts about the source, such as stores that were left out.
    """

    frozen: list[dict[str, Any]]
    columns: dict[str, str]
    notes: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The plan as JSON."""
        return orjson.dumps(self, option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, data: bytes) -> "Plan":
        """The plan of `encode`. Raises JobFailed (`conservation`) for anything else."""
        try:
            plan = _reader().validate_json(data, strict=True)
            Columns.from_json(plan.columns)
        except ValidationError as error:
            raise unreadable("the plan", error) from None
        except ValueError as error:
            raise JobFailed(FailureCode.CONSERVATION, f"the plan cannot be read: {error}") from None
        return plan


@cache
def _reader() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


async def read_plan(store: ObjectStore, layout: Layout) -> Plan:
    """The plan of a job. Raises ObjectMissing when there is none, and StoreUnavailable."""
    return Plan.decode(await store.get(layout.plan))
