"""The JWKS of the realm: the public keys that Keycloak signs tokens with, fetched and cached."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import orjson

from shardline_common.errors import ServiceUnavailable
from shardline_common.http.client import (
    HttpConnectionError,
    HttpOptions,
    HttpRequest,
    ResponseTooLarge,
    open_http,
)
from shardline_common.http.urls import encoded
from shardline_common.ports.clock import Clock

_log = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 5.0
_BAD_REQUEST = 400

FetchJwks = Callable[[], Awaitable[Mapping[str, Any]]]


class JwksUnavailable(ServiceUnavailable):
    """The JWKS cannot be fetched, so no token can be verified."""


@dataclass(frozen=True, slots=True)
class JwksPolicy:
    """How long the JWKS is cached, in seconds.

    Attributes:
        fresh_seconds: the age from which on it is fetched again.
        usable_seconds: the age up to which it is used while it cannot be fetched.
        min_interval_seconds: the shortest time between two fetches.
        wait_seconds: how long a request whose key is known waits for a fetch.
    """

    fresh_seconds: float = 600.0
    usable_seconds: float = 3600.0
    min_interval_seconds: float = 10.0
    wait_seconds: float = 0.5


def jwks_fetcher(url: str) -> FetchJwks:
    """Return a function that fetches the JWKS from this URL and raises JwksUnavailable."""

    async def fetch() -> Mapping[str, Any]:
        try:
            options = HttpOptions(
                encoded(url),
                total_seconds=_TIMEOUT_SECONDS,
                follow_redirects=True,
                keep_cookies=True,
                ends_by_close=True,
            )
            async with open_http(options) as client:
                response = await client.send(HttpRequest("GET"))
            document = orjson.loads(response.body) if response.status < _BAD_REQUEST else None
        except HttpConnectionError as error:
            raise JwksUnavailable(f"the keys of the realm cannot be read: {error.detail}") from error
        except (ResponseTooLarge, ValueError) as error:
            raise JwksUnavailable(f"the keys of the realm cannot be read: {type(error).__name__}") from error
        if response.status >= _BAD_REQUEST:
            raise JwksUnavailable(f"the keys of the realm cannot be read: HTTP status {response.status}")
        if not isinstance(document, dict):
            raise JwksUnavailable("the keys of the realm cannot be read: the response is not a JSON object")
        return document

    return fetch


class JwksCache:
    """Caches the realm's public keys by key id. Only RSA signing keys of the JWKS are used."""

    def __init__(self, fetch: FetchJwks, clock: Clock, policy: JwksPolicy | None = None) -> None:
        self._fetch = fetch
        self._clock = clock
        self._policy = policy or JwksPolicy()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None

    async def get(self, kid: str) -> jwt.PyJWK | None:
        """Return the key of this id, or None when the realm has none.

        An unknown id, or a stale cache, causes a fetch. A request whose key is known waits for it only
        `wait_seconds`: a realm that hangs must not delay those who use known keys.

        Raises:
            JwksUnavailable: the fetch failed, and the cached keys are too old or lack this id.
        """
        if kid in self._keys and self._age() < self._policy.fresh_seconds:
            return self._keys[kid]
        if kid in self._keys and self._age() < self._policy.usable_seconds:
            if self._background is None:
                self._background = asyncio.ensure_future(self._refresh_in_background())
            # A realm that answers has its say: the key may be withdrawn. `wait` cancels nothing.
            await asyncio.wait([self._background], timeout=self._policy.wait_seconds)
            return self._keys.get(kid)
        async with self._lock:
            missing = kid not in self._keys
            if missing or self._age() >= self._policy.fresh_seconds:
                await self._refresh(required=missing or self._age() >= self._policy.usable_seconds)
        return self._keys.get(kid)

    async def close(self) -> None:
        """End a fetch that runs in the background."""
        if self._background is not None:
            self._background.cancel()
            await asyncio.wait([self._background])

    async def _refresh_in_background(self) -> None:
        try:
            async with self._lock:
                if self._age() >= self._policy.fresh_seconds:
                    await self._refresh(required=False)
        except Exception:  # noqa: BLE001 - a bug is logged; the cached keys stay in use
            _log.exception("fetching the keys of the realm: a bug in Shardline")
        finally:
            self._background = None

    def _age(self) -> float:
        return self._clock.monotonic() - self._fetched_at

    async def _refresh(self, *, required: bool) -> None:
        now = self._clock.monotonic()
        if now - self._tried_at < self._policy.min_interval_seconds:
            # Without this limit, a client that invents key ids would cause a fetch for each request.
            if required and self._fetched_at < self._tried_at:
                raise JwksUnavailable("the keys of the realm could not be read a moment ago")
            return
        self._tried_at = now
        try:
            document = await self._fetch()
        except JwksUnavailable as error:
            if required:
                raise
            _log.warning("%s; the cached keys stay in use", error)
            return
        self._keys = _signing_keys(document)
        self._fetched_at = now


def _signing_keys(document: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    found = {}
    keys = document.get("keys")
    for key in keys if isinstance(keys, list) else []:
        usable = isinstance(key, dict) and key.get("kty") == "RSA" and key.get("use", "sig") == "sig"
        if usable and isinstance(key.get("kid"), str) and key.get("alg", "RS256") == "RS256":
            try:
                found[key["kid"]] = jwt.PyJWK(key, "RS256")
            except jwt.PyJWTError as error:
                _log.warning("a key of the realm cannot be used: %s", error)
    return found
