"""The operations of one broker adapter: their errors translated, long ones logged, failing ones known.

aiokafka repeats most requests without an end, so an operation that does not end is as much a failure as one
that raises.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shardline_common.errors import BrokerUnavailable, Fenced, OffsetOutOfRange, TopicMissing, explain
from shardline_common.kafka.answers import Answers
from shardline_common.kafka.asking import SilentBrokers
from shardline_common.kafka.client_errors import Request, last_refusal, translated
from shardline_common.kafka.options import KafkaOptions
from shardline_common.kafka.patient_client import watch_answers
from shardline_common.runtime.durations import seconds_text
from shardline_common.runtime.waits import LOG_SECONDS, WaitLog

# A failed operation that nobody repeats is forgotten after this time: its job ended.
_FORGET_SECONDS = 90.0
_UNKNOWN = "Kafka has not answered yet"


@dataclass(slots=True)
class _State:
    """`since`: the start of the running call, or the first failure. `error`: the last failure."""

    since: float
    ended: float = 0.0
    error: str | None = None
    running: dict[int, Request] = field(default_factory=dict)


class Operations:
    """Runs the operations of one adapter, by name. `silent`: the brokers that do not answer its clients."""

    def __init__(self, options: KafkaOptions) -> None:
        self.options = options
        self.silent = SilentBrokers()
        self._states: dict[str, _State] = {}

    def watch(self, client: Any, answers: Answers | None = None) -> Answers:
        """Make a client patient before it starts. Returns the refusals that it will get."""
        return watch_answers(client, answers, self.silent)

    def failing(self, seconds: float) -> str | None:
        """A sentence about the operation that fails or runs longest, if for this many seconds; else None."""
        now = _now()
        self._forget(now)
        if not self._states:
            return None
        what, state = min(self._states.items(), key=lambda item: item[1].since)
        if now - state.since < seconds:
            return None
        error = state.error or f"{what}: {self.reason(next(iter(state.running.values()), Request(what)))}"
        return f"failing for {seconds_text(now - state.since)}: {error}"

    def failing_seconds(self) -> float:
        """For how long the operation that fails longest has been failing; 0 when none does.

        A wait without an error counts once it is as long as a wait that is logged.
        """
        now = _now()
        self._forget(now)
        seconds = [now - one.since for one in self._states.values() if one.error]
        waits = [now - one.since for one in self._states.values() if not one.error]
        return max([0.0, *seconds, *(wait for wait in waits if wait >= LOG_SECONDS)])

    def failed(self, request: Request, error: str) -> None:
        """The operation failed."""
        self._forget(_now())
        state = self._states.setdefault(request.what, _State(_now()))
        state.error, state.ended = error, _now()

    def _forget(self, now: float) -> None:
        for what, state in tuple(self._states.items()):
            if not state.running and now - state.ended > _FORGET_SECONDS:
                del self._states[what]

    def succeeded(self, request: Request) -> None:
        """The operation succeeded: earlier failures of it are forgotten."""
        state = self._states.pop(request.what, None)
        if state is not None and state.running:
            self._states[request.what] = _State(_now(), running=state.running)

    @contextmanager
    def translated(self, request: Request) -> Iterator[None]:
        """Translate and record an error of the body; its success says nothing.

        Raises:
            Fenced, TopicMissing, BrokerRefused, BrokerUnavailable: the body failed.
        """
        try:
            with translated(request, self.options):
                yield
        except (Fenced, TopicMissing, OffsetOutOfRange):
            # Kafka works, and has answered.
            self.succeeded(request)
            raise
        except BrokerUnavailable as error:
            self.failed(request, explain(error))
            raise

    @contextmanager
    def run(self, request: Request) -> Iterator[None]:
        """Run one call, which ends with success or failure. See `translated` for what it raises."""
        with self.waiting(request), self.translated(request):
            yield
        self.succeeded(request)

    @contextmanager
    def waiting(self, request: Request) -> Iterator[None]:
        """Log the wait of the body for Kafka, and count it as failing when it lasts."""
        wait = self.wait(request)
        wait.begin()
        try:
            yield
        finally:
            wait.end()

    def wait(self, request: Request) -> "OperationWait":
        """A wait for Kafka that other code begins and ends."""
        return OperationWait(self, request)

    def reason(self, request: Request) -> str:
        """What is known about the cause while the operation lasts."""
        refusal = last_refusal(request, self.options)
        if refusal is None:
            return _UNKNOWN
        return f"{refusal.reason}; {refusal.hint}" if refusal.hint else refusal.reason

    def begin_wait(self, wait: "OperationWait", request: Request) -> None:
        """Count a wait as running."""
        self._states.setdefault(request.what, _State(_now())).running[id(wait)] = request

    def end_wait(self, wait: "OperationWait", request: Request) -> None:
        """Count a wait as ended. A failure before it or during it stays."""
        state = self._states.get(request.what)
        if state is not None and state.running.pop(id(wait), None) is not None:
            state.ended = _now()
            if not state.running and state.error is None:
                del self._states[request.what]


class OperationWait:
    """One wait for Kafka. All calls may be repeated."""

    def __init__(self, operations: Operations, request: Request) -> None:
        self._operations = operations
        self._request = request
        self._log = WaitLog(
            f"Kafka: {request.what}",
            lambda: operations.reason(request),
            explained=lambda: last_refusal(request, operations.options) is not None,
        )

    def begin(self) -> None:
        """The wait starts."""
        self._log.begin()
        self._operations.begin_wait(self, self._request)

    def end(self) -> None:
        """The wait ends, with or without success."""
        self._log.end()
        self._operations.end_wait(self, self._request)

    def succeed(self) -> None:
        """The wait ends, and earlier failures of the operation are forgotten."""
        self.end()
        self._operations.succeeded(self._request)


def _now() -> float:
    return asyncio.get_running_loop().time()
