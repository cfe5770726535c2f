"""A job's plan: the source and the columns, frozen before the first message."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import orjson
from pydantic import TypeAdapter

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.columns import Columns
from shardline_common.job.names import Layout
from shardline_common.job.stored_json import read_stored
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.read_again import read_again

RULES = 2
"""The rules of this version: since 2, names of columns differ without case, and blank is a frozen table."""
_HINT = "restore this object, then retry the job; or submit a new job"


@dataclass(frozen=True, slots=True)
class FrozenFilter:
    """A filter of a job as it was when the job was planned: a worker with another one takes no part in it.

    `parameters` are all of them, those of the preset and defaults included. `reasons`: those that the filter
    may give. `libraries`: the versions of the distributions that decide too. `files`: the sha256 of each.
    """

    name: str
    version: int
    parameters: dict[str, Any]
    reasons: list[str]
    libraries: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """`frozen` identifies the source (`Source.freeze`); `columns` maps metadata columns to their types.

    `notes` go into manifest and status: facts about the source, such as stores that were left out. `rules`:
    the version of the rules that make rows of documents; plans of version 0.1 have 1. `renamed` and
    `without_column` as in `Columns`. `slices`: the ranges of the source (`Source.cut`) of a job with several
    slices; empty for a job with one. `against`: address and digest of each dataset of `dedup.against`.
    `filters`: those of `quality`, in the order in which they judge.
    """

    frozen: list[dict[str, Any]]
    columns: dict[str, str]
    notes: dict[str, Any] = field(default_factory=dict)
    rules: int = 1
    renamed: dict[str, str] = field(default_factory=dict)
    without_column: int = 0
    slices: list[dict[str, Any]] = field(default_factory=list)
    against: list[dict[str, str]] = field(default_factory=list)
    filters: list[FrozenFilter] = field(default_factory=list)

    @property
    def row_columns(self) -> Columns:
        """The columns of the rows."""
        return Columns.from_json(self.columns, self.renamed)

    def encode(self) -> bytes:
        """The plan as JSON."""
        value = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("slices", "against", "filters"):
            # The plan of a job without them is, to the byte, that of the versions that knew none.
            if not value[name]:
                del value[name]
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, data: bytes, key: str = "the plan") -> "Plan":
        """The plan of `encode`, which is stored under `key`.

        Raises:
            JobFailed: the bytes are no plan (`dataset_damaged`).
        """
        plan = read_stored(_reader(), data, key, _HINT)
        try:
            Columns.from_json(plan.columns)
        except ValueError as error:
            message = f"{key} cannot be read: {error}"
            raise JobFailed(FailureCode.DATASET_DAMAGED, message, hint=_HINT) from None
        return plan


@cache
def _reader() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


async def read_plan(store: ObjectStore, layout: Layout, pauses: Sequence[float] | None = None) -> Plan:
    """The plan of a job. `pauses` are those of `read_again`.

    Raises:
        ObjectMissing: there is none.
        JobFailed: it is damaged, also when it is read again (`dataset_damaged`).
        StoreUnavailable: try again later.
    """

    async def read() -> Plan:
        return Plan.decode(await store.get(layout.plan), layout.plan)

    return await read_again(read, pauses=pauses)
