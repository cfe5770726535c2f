"""Whether streams can search UDS3 now."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shardline.gateway.problems import Problem
from shardline_common.errors import ShardlineError, explain
from shardline_common.job.spec import JobSpec, SearchType
from shardline_common.ports.clock import Clock

_log = logging.getLogger("shardline.gateway")
_PROBE_INTERVAL_SECONDS = 10.0
_PROBE_TIMEOUT_SECONDS = 4.0
# How long `latest` waits for a probe that runs. UDS3 commonly answers in less.
_WAIT_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Uds3State:
    """The result of a probe. `reason`: why UDS3 is not available; None when it is.

    `age`: the seconds since then; None without a probe.
    """

    reason: str | None
    age: float | None


class Uds3Status:
    """Probes UDS3 in the background when somebody asks, at most once in 10 seconds for all requests.

    Args:
        probe: raises a ShardlineError when UDS3 cannot be reached; None when UDS3 is switched off.
        searches: the searches for which a store is configured.
        clock: measures the age of the last probe.
    """

    def __init__(
        self, probe: Callable[[], Awaitable[object]] | None, searches: frozenset[SearchType], clock: Clock
    ) -> None:
        self._probe = probe
        self._searches = searches
        self._clock = clock
        self._probing: asyncio.Task[None] | None = None
        self._probed_at = float("-inf")
        self._reason: str | None = "UDS3 has not answered yet"

    async def latest(self) -> Uds3State:
        """The last known state. It may be old: a probe that hangs does not delay the caller."""
        await self._refresh(_WAIT_SECONDS)
        age = self._clock.monotonic() - self._probed_at
        return Uds3State(self._reason, None if age == float("inf") else age)

    async def require(self) -> None:
        """Raise Problem (503) when UDS3 is not available. Waits for a probe when the last one is old."""
        await self._refresh(_PROBE_TIMEOUT_SECONDS + 1)
        if self._reason is not None:
            raise Problem(503, f"UDS3 is not available: {self._reason}", headers={"Retry-After": "10"})

    async def close(self) -> None:
        """End a probe that runs."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])

    async def _refresh(self, wait_seconds: float) -> None:
        """Start a probe when the last one is old, and wait so long for one that runs."""
        if self._probe is None:
            self._reason = "UDS3 is switched off (UDS3_ENABLED=false)"
            return
        if self._probing is None:
            if self._clock.monotonic() - self._probed_at < _PROBE_INTERVAL_SECONDS:
                return
            self._probing = asyncio.ensure_future(self._run(self._probe))
        # `wait` does not cancel the probe when its caller is cancelled: others wait for it, too.
        await asyncio.wait([self._probing], timeout=wait_seconds)

    async def _run(self, probe: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                await probe()
            reason = None
        except TimeoutError:
            reason = f"UDS3 does not answer within {_PROBE_TIMEOUT_SECONDS:.0f} s"
        except ShardlineError as error:
            reason = explain(error)
        except Exception:  # noqa: BLE001 - a bug is logged with its stack trace, and hidden from the client
            _log.exception("the probe of UDS3: a bug in Shardline")
            reason = "its probe failed; the log of the gateway has the reason"
        finally:
            self._probing = None
        self._reason, self._probed_at = reason, self._clock.monotonic()

    def require_search(self, spec: JobSpec) -> None:
        """Raise Problem (503) when no store is configured for any of the job's searches."""
        wanted = set(spec.query.shares)
        if not wanted & self._searches:
            configured = ", ".join(sorted(self._searches)) or "none"
            raise Problem(
                503,
                f"no store is configured for {', '.join(sorted(wanted))}; searches here: {configured}",
            )
