"""The news of a job: how its attempts ended, told beside whatever else the job does."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import orjson

from shardline_common.errors import ObjectMissing
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome, read_outcome
from shardline_common.job.spec import JobSpec
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.threads import run_in_thread

_log = logging.getLogger(__name__)


class Receiver(Protocol):
    """Who is told. Repeats after a crash have the same id and the same body."""

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Return once the message was taken, or given up for good."""


class News:
    """Tells what one job owes. What is being told holds up neither the job nor its topic's removal."""

    def __init__(self, receiver: Receiver | None, store: ObjectStore, clock: Clock, spec: JobSpec) -> None:
        self._receiver = receiver
        self._store = store
        self._clock = clock
        self._spec = spec
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def wanted(self) -> bool:
        """Whether anybody is told at all."""
        return self._receiver is not None

    @property
    def pending(self) -> list[asyncio.Task[None]]:
        """What is being told now."""
        return [task for task in self._tasks.values() if not task.done()]

    @property
    def told(self) -> set[int]:
        """Attempts that were told, or given up."""
        return {attempt for attempt, task in self._tasks.items() if task.done() and not task.cancelled()}

    def tell(self, owed: Iterable[int]) -> None:
        """Begin to tell these attempts, unless they are told already."""
        if self._receiver is None:
            return
        for attempt in set(owed) - self._tasks.keys():
            name = f"tell {self._spec.job_id} {attempt}"
            self._tasks[attempt] = asyncio.create_task(self._tell(self._receiver, attempt), name=name)

    async def stop(self) -> None:
        """Tell no more; what is not told yet stays owed."""
        tasks = self.pending
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def _tell(self, receiver: Receiver, attempt: int) -> None:
        job_id = self._spec.job_id
        try:
            read = partial(notice, self._store, self._spec, attempt)
            body = await retry_forever(read, self._clock, f"read how {job_id} ended")
            if body is None:
                return
            failpoint("webhook.before_send")
            await receiver.deliver(f"{job_id}_{attempt}", body)
            failpoint("webhook.after_send")
        except Exception:  # noqa: BLE001 - the news must not end the job
            _log.exception("%s: a bug in Shardline: attempt %d was not told", job_id, attempt)


async def notice(store: ObjectStore, spec: JobSpec, attempt: int) -> bytes | None:
    """What is told of an attempt that was decided; None when the dataset was deleted since.

    It follows from what stands in the store alone, so that a repeat is the same, byte for byte.

    Raises:
        StoreUnavailable: try again later.
    """
    layout = Layout.of(spec)
    outcome = await read_outcome(store, layout, attempt)
    if outcome is None:
        return None
    if outcome.ending != "completed":
        return orjson.dumps(_news(spec, outcome, {}, None))
    try:
        text = await store.get(layout.manifest)
    except ObjectMissing:
        return None
    manifest = await run_in_thread(lambda: orjson.loads(text))
    return orjson.dumps(_news(spec, outcome, manifest, f"{store.uri}/{layout.root}".rstrip("/")))


def _news(
    spec: JobSpec, outcome: Outcome, manifest: Mapping[str, Any], dataset: str | None
) -> dict[str, Any]:
    return {
        "event": f"job.{outcome.ending}",
        "job_id": spec.job_id,
        "name": spec.name,
        "state": outcome.ending,
        "attempt": outcome.attempt,
        "code": outcome.code,
        "message": outcome.message,
        "warning": ", ".join(manifest.get("warnings", ())) or None,
        "dataset": dataset,
        "digest": manifest.get("digest"),
        "rows": manifest["totals"]["rows"] if manifest else None,
        "rejected": manifest.get("rejected"),
        "dead_letters": manifest.get("dead_letters"),
        "finished_at": outcome.at,
    }
