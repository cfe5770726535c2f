"""The outbox of a job. It delivers a notification of each attempt that ended."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import orjson

from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome, read_outcome
from shardline_common.job.spec import JobSpec
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.read_again import read_again
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.task_group import no_foreign_cancel
from shardline_common.runtime.threads import run_in_thread
from shardline_common.runtime.unexpected import UnexpectedErrors

_log = logging.getLogger(__name__)


class Receiver(Protocol):
    """Receives notifications. A repeat after a crash has the same id and the same body."""

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Deliver a notification. Returns when it was accepted, or was discarded after failed attempts."""


@dataclass(frozen=True, slots=True)
class NotificationStatus:
    """The status of an outbox.

    `delivered`: attempts whose notification was delivered or discarded. `delivering`: one is under way.
    """

    delivered: frozenset[int] = frozenset()
    delivering: bool = False


class NotificationOutbox:
    """Delivers the notifications of one job. Each has a task, so none delays the job or another notification.

    Without a receiver there are no notifications.
    """

    def __init__(
        self,
        receiver: Receiver | None,
        store: ObjectStore,
        clock: Clock,
        spec: JobSpec,
        errors: UnexpectedErrors | None = None,
    ) -> None:
        self._errors = UnexpectedErrors() if errors is None else errors
        self._receiver = receiver
        self._store = store
        self._clock = clock
        self._spec = spec
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def enabled(self) -> bool:
        """Whether there is a receiver."""
        return self._receiver is not None

    @property
    def deliveries(self) -> list[asyncio.Task[None]]:
        """The deliveries under way."""
        return [task for task in self._tasks.values() if not task.done()]

    @property
    def delivered(self) -> frozenset[int]:
        """Attempts whose notification was delivered or discarded."""
        done = (attempt for attempt, task in self._tasks.items() if task.done() and not task.cancelled())
        return frozenset(done)

    @property
    def status(self) -> NotificationStatus:
        """The status for `next_action`."""
        return NotificationStatus(self.delivered, bool(self.deliveries))

    def start(self, attempts: Iterable[int]) -> None:
        """Start the deliveries for those of the attempts for which none was started before."""
        if self._receiver is None:
            return
        for attempt in set(attempts) - self._tasks.keys():
            name = f"notify {self._spec.job_id} {attempt}"
            self._tasks[attempt] = asyncio.create_task(self._deliver(self._receiver, attempt), name=name)

    async def stop(self) -> None:
        """Cancel the deliveries under way. Their notifications stay pending in the checkpoint."""
        tasks = self.deliveries
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def _deliver(self, receiver: Receiver, attempt: int) -> None:
        job_id = self._spec.job_id
        try:
            read = partial(notification_body, self._store, self._spec, attempt)
            with no_foreign_cancel():
                body = await retry_forever(read, self._clock, f"read the outcome of {job_id}")
            if body is None:
                return
            failpoint("webhook.before_send")
            with no_foreign_cancel():
                await receiver.deliver(f"{job_id}_{attempt}", body)
            failpoint("webhook.after_send")
        except Exception as error:  # noqa: BLE001 - a notification must not end the job
            text = "%s: a bug in Shardline: the notification of attempt %d is discarded: %s: %s"
            name = type(error).__name__
            _log.error(text, job_id, attempt, name, error, exc_info=self._errors.new(error))


async def notification_body(store: ObjectStore, spec: JobSpec, attempt: int) -> bytes | None:
    """The notification of a decided attempt as JSON; None when the dataset was deleted.

    It is made only from objects in the store, so a repeat has the same bytes.

    Raises:
        StoreUnavailable: try again later.
    """
    layout = Layout.of(spec)
    outcome = await read_outcome(store, layout, attempt)
    if outcome is None:
        return None
    manifest: Mapping[str, Any] = {}
    dataset = None
    if outcome.ending == "completed":

        async def read() -> Mapping[str, Any]:
            text = await store.get(layout.manifest)
            return await run_in_thread(lambda: _decode_manifest(text))

        try:
            manifest = await read_again(read)
        except ObjectMissing:
            return None
        dataset = f"{store.uri}/{layout.root}".rstrip("/")
    return orjson.dumps(_notification(spec, outcome, manifest, dataset))


def _decode_manifest(text: bytes) -> Mapping[str, Any]:
    try:
        decoded: Mapping[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise JobFailed(FailureCode.DATASET_DAMAGED, f"manifest.json cannot be read: {error}") from None
    return decoded


def _notification(
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
