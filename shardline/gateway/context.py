"""What the routes share, and who may use them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from shardline.gateway.access_tokens import Tokens, unauthorized
from shardline.gateway.audit import Audit
from shardline.gateway.dataset_library import Library
from shardline.gateway.job_watcher import Watch
from shardline.gateway.problems import Problem
from shardline.gateway.rate_limits import RateLimit, StreamLimit
from shardline.gateway.signed_links import Links
from shardline.gateway.users import Right, SecurityPolicy, User
from shardline_common.errors import ShardlineError
from shardline_common.job.spec import JobSpec, SearchType
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.sources.source import OpenSource

COOKIE = "shardline_token"
_PROBE_SECONDS = 10.0
_PROBE_TIMEOUT = 4.0


class Uds3:
    """Whether UDS3 is there, looked at now and then. `probe` raises a ShardlineError when it is not.

    `searches` are those that a store is configured for.
    """

    def __init__(
        self, probe: Callable[[], Awaitable[object]] | None, searches: frozenset[SearchType], clock: Clock
    ) -> None:
        self._probe = probe
        self._searches = searches
        self._clock = clock
        self._lock = asyncio.Lock()
        self._looked = float("-inf")
        self._trouble: str | None = None

    async def trouble(self) -> str | None:
        """What keeps UDS3 from answering; None when it does."""
        if self._probe is None:
            return "UDS3 is switched off (UDS3_ENABLED=false)"
        async with self._lock:
            if self._clock.monotonic() - self._looked >= _PROBE_SECONDS:
                self._trouble = await self._look(self._probe)
                self._looked = self._clock.monotonic()
        return self._trouble

    async def _look(self, probe: Callable[[], Awaitable[object]]) -> str | None:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                await probe()
        except TimeoutError:
            return f"UDS3 does not answer within {_PROBE_TIMEOUT:.0f} s"
        except ShardlineError as error:
            return f"{error}; {error.hint}" if error.hint else str(error)
        return None

    async def require(self) -> None:
        """Raise Problem (503) when UDS3 is not there."""
        if (trouble := await self.trouble()) is not None:
            raise Problem(503, f"UDS3 is not available: {trouble}", headers={"Retry-After": "10"})

    def require_search(self, spec: JobSpec) -> None:
        """Raise Problem (503) when no store is configured for any of the searches of a job."""
        asked = set(spec.query.shares)
        if not asked & self._searches:
            there = ", ".join(sorted(self._searches)) or "none"
            raise Problem(
                503, f"no store is configured for {', '.join(sorted(asked))}; searches here: {there}"
            )


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything that serves requests. `tokens` None: all are the security policy's one user."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    security: SecurityPolicy
    tokens: Tokens | None
    watch: Watch
    library: Library
    open_source: OpenSource
    uds3: Uds3
    audit: Audit
    rate: RateLimit
    streams: StreamLimit
    render_lock: asyncio.Lock
    watchers: StreamLimit
    links: Links
    port: int


async def gateway_of(request: Request) -> Gateway:
    """The gateway that serves a request. A coroutine: what is not would run on a thread."""
    found: Gateway = request.app.state.gateway
    return found


Gate = Annotated[Gateway, Depends(gateway_of)]
_bearer = HTTPBearer(auto_error=False, description="An access token of the Keycloak realm (RS256).")
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def identify(request: Request, gate: Gateway, token: str | None) -> User:
    """Who calls.

    Raises:
        Problem: 401, there is no valid token; 429, too many requests.
        KeysUnavailable: tokens cannot be checked now.
    """
    if gate.security.everyone is not None:
        user = gate.security.everyone
    elif gate.tokens is None:
        raise unauthorized("tokens cannot be checked")
    else:
        user = await gate.tokens.user(token or _from_cookie(request))
    gate.rate.take(user.id)
    return user


def _from_cookie(request: Request) -> str:
    token = request.cookies.get(COOKIE)
    if not token:
        raise unauthorized("a token is needed: Authorization: Bearer …")
    if request.method != "GET" and request.headers.get("origin") is None:
        # The outer layer has checked the origin where one is given; without one, nobody vouches for the page.
        raise Problem(403, "with a cookie, changes are taken from this gateway's own pages only")
    return token


def bearer_of(request: Request) -> str | None:
    """The token of the header Authorization."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def authorize(request: Request, gate: Gateway, token: str | None, right: Right) -> User:
    """Who calls, and has the right; a refusal goes into the audit log. Raises as `identify`, or 403."""
    found: User | None = None
    try:
        found = await identify(request, gate, token)
        found.require(right)
    except Problem as problem:
        action = f"{request.method} {request.url.path}"
        gate.audit.record(found, action[:300], str(problem.status_code))
        raise
    return found


def requires(right: Right) -> Any:
    """A dependency: the user, who must have the right."""

    async def user(request: Request, gate: Gate, bearer: _Bearer) -> User:
        return await authorize(request, gate, bearer.credentials if bearer else None, right)

    return Depends(user)


Reader = Annotated[User, requires(Right.READ)]
Creator = Annotated[User, requires(Right.CREATE)]
Exporter = Annotated[User, requires(Right.EXPORT)]


def store_of(gate: Gateway) -> ObjectStore:
    """The store of datasets. Raises Problem (503) where none is set up."""
    if gate.library.store is None:
        raise Problem(503, "no store of datasets is set up: S3_BUCKET is not set")
    return gate.library.store
