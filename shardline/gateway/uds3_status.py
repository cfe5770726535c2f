"""Whether streams can search UDS3 now."""

import asyncio
from collections.abc import Awaitable, Callable

from shardline.gateway.problems import Problem
from shardline_common.errors import ShardlineError, explain
from shardline_common.job.spec import JobSpec, SearchType
from shardline_common.ports.clock import Clock

_PROBE_INTERVAL_SECONDS = 10.0
_PROBE_TIMEOUT_SECONDS = 4.0


class Uds3Status:
    """Probes UDS3, at most once in 10 seconds for all requests.

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
        self._lock = asyncio.Lock()
        self._probed_at = float("-inf")
        self._reason: str | None = None

    async def unavailable_reason(self) -> str | None:
        """Why UDS3 is not available; None when it is."""
        if self._probe is None:
            return "UDS3 is switched off (UDS3_ENABLED=false)"
        async with self._lock:
            if self._clock.monotonic() - self._probed_at >= _PROBE_INTERVAL_SECONDS:
                try:
                    async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                        await self._probe()
                    self._reason = None
                except TimeoutError:
                    self._reason = f"UDS3 does not answer within {_PROBE_TIMEOUT_SECONDS:.0f} s"
                except ShardlineError as error:
                    self._reason = explain(error)
                self._probed_at = self._clock.monotonic()
        return self._reason

    async def require(self) -> None:
        """Raise Problem (503) when UDS3 is not available."""
        if (reason := await self.unavailable_reason()) is not None:
            raise Problem(503, f"UDS3 is not available: {reason}", headers={"Retry-After": "10"})

    def require_search(self, spec: JobSpec) -> None:
        """Raise Problem (503) when no store is configured for any of the job's searches."""
        wanted = set(spec.query.shares)
        if not wanted & self._searches:
            configured = ", ".join(sorted(self._searches)) or "none"
            raise Problem(
                503,
                f"no store is configured for {', '.join(sorted(wanted))}; searches here: {configured}",
            )
