"""The outcome of an attempt: one create-only record that decides the attempt."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import Any, Literal

import orjson
from pydantic import TypeAdapter

from shardline_common import __version__
from shardline_common.errors import JobFailed, ObjectMissing, explain
from shardline_common.job.names import Layout, attempt_of_outcome
from shardline_common.job.state import JobState
from shardline_common.job.stored_json import read_stored
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import SYSTEM_CLOCK, stamp
from shardline_common.runtime.create_or_read import create_or_read
from shardline_common.runtime.read_again import read_again

Ending = Literal["completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    `at` and `accepted_at` are RFC 3339 times. `code` and `message` say why it failed. A completed attempt has
    the counts it was proven against: `source_count`, and `produced` as (messages, hash sum) per partition;
    and the source's `findings`, as JSON.
    """

    attempt: int
    ending: Ending
    at: str
    accepted_at: str
    software: str
    code: str | None = None
    message: str | None = None
    source_count: int | None = None
    produced: Sequence[tuple[int, int]] = ()
    findings: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The outcome as JSON. Findings that are empty are left out, as earlier versions wrote it."""
        value = asdict(self)
        if not self.findings:
            del value["findings"]
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, body: bytes, key: str) -> "Outcome":
        """The outcome of its JSON, which is stored under `key`.

        Raises:
            JobFailed: the bytes are no outcome record (`dataset_damaged`).
        """
        hint = "restore or delete this object, then run or retry the job"
        return read_stored(_reader(), body, f"{key}: this outcome record", hint)


@cache
def _reader() -> TypeAdapter[Outcome]:
    return TypeAdapter(Outcome)


def failed(state: JobState, error: JobFailed, clock: Clock) -> Outcome:
    """The outcome `failed`, with the code and the text of the error."""
    message = explain(error)
    return Outcome(
        state.attempt, "failed", stamp(clock), state.accepted_at, __version__, error.code.value, message
    )


def cancelled(state: JobState, requested_by: str | None, clock: Clock) -> Outcome:
    """The outcome `cancelled`."""
    message = f"cancelled by {requested_by}" if requested_by else "cancelled"
    at, software = stamp(clock), __version__
    return Outcome(state.attempt, "cancelled", at, state.accepted_at, software, message=message)


async def read_outcome(
    store: ObjectStore, layout: Layout, attempt: int, pauses: Sequence[float] | None = None
) -> Outcome | None:
    """The outcome of an attempt; None while it is undecided. `pauses` are those of `read_again`.

    Raises:
        JobFailed: the record is damaged, also when it is read again (`dataset_damaged`).
        StoreUnavailable: try again later.
    """
    try:
        return await read_again(partial(_read, store, layout.outcome(attempt)), pauses=pauses)
    except ObjectMissing:
        return None


async def _read(store: ObjectStore, key: str) -> Outcome:
    return Outcome.decode(await store.get(key), key)


async def decide(
    store: ObjectStore, layout: Layout, outcome: Outcome, clock: Clock = SYSTEM_CLOCK
) -> Outcome:
    """Create the outcome record. Returns the outcome in the store; another process may have decided first.

    Raises:
        JobFailed: the store refuses the record, and has none (`store_inconsistent`), loses it
            (`object_lost`), or has a damaged one (`dataset_damaged`).
        StoreUnavailable: the outcome may have been created; call again.
    """
    key = layout.outcome(outcome.attempt)
    create = partial(store.create, key, outcome.encode())
    read = partial(read_again, partial(_read, store, key))
    existing = await create_or_read(create, read, key, clock, confirm=True)
    return outcome if existing is None else existing


async def latest_attempt(store: ObjectStore, layout: Layout) -> tuple[int, Outcome | None]:
    """The highest decided attempt and its outcome; (0, None) when none is decided.

    Raises as `read_outcome`.
    """
    best: tuple[int, Outcome | None] = (0, None)
    async for info in store.list(layout.outcomes):
        attempt = attempt_of_outcome(info.key.removeprefix(layout.root))
        if attempt > best[0]:
            best = attempt, await read_outcome(store, layout, attempt)
    return best
