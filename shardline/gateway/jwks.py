"""The realm's public keys, read from Keycloak: kept, and read again when a token names a new one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import orjson

from shardline_common.errors import ServiceUnavailable
from shardline_common.http.client import (
    AnswerTooLarge,
    HttpConnectionError,
    HttpOptions,
    HttpRequest,
    open_http,
)
from shardline_common.http.urls import encoded
from shardline_common.ports.clock import Clock

_log = logging.getLogger(__name__)
_SECONDS = 5.0
_REFUSED = 400

Fetch = Callable[[], Awaitable[Mapping[str, Any]]]


class KeysUnavailable(ServiceUnavailable):
    """The keys cannot be read: nobody can be let in."""


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """Seconds: keys are read again after `fresh`, trusted up to `trusted`, asked for once in `floor`."""

    fresh: float = 600.0
    trusted: float = 3600.0
    floor: float = 10.0


def fetch_keys(url: str) -> Fetch:
    """Read a JWKS document over HTTP."""
    options = HttpOptions(encoded(url), total_seconds=_SECONDS, follow_redirects=True)

    async def fetch() -> Mapping[str, Any]:
        try:
            async with open_http(options) as client:
                answer = await client.send(HttpRequest("GET"))
            found = orjson.loads(answer.body) if answer.status < _REFUSED else None
        except HttpConnectionError as error:
            raise KeysUnavailable(f"the keys of the realm cannot be read: {error.name}") from error
        except (AnswerTooLarge, ValueError) as error:
            raise KeysUnavailable(f"the keys of the realm cannot be read: {type(error).__name__}") from error
        if answer.status >= _REFUSED:
            raise KeysUnavailable(f"the keys of the realm cannot be read: it answers {answer.status}")
        if not isinstance(found, dict):
            raise KeysUnavailable("the keys of the realm cannot be read: the answer is no JSON object")
        return found

    return fetch


class Keys:
    """Public keys by id. RSA keys for signatures only: nothing else of the document is looked at."""

    def __init__(self, fetch: Fetch, clock: Clock, times: KeyTimes | None = None) -> None:
        self._fetch = fetch
        self._clock = clock
        self._times = times or KeyTimes()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = self._asked_at = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self, kid: str) -> jwt.PyJWK | None:
        """The key of that id, or None when the realm has none.

        Raises:
            KeysUnavailable: the keys cannot be read and those known are too old, or lack this one.
        """
        if kid in self._keys and self._age() < self._times.fresh:
            return self._keys[kid]
        async with self._lock:
            missing = kid not in self._keys
            if missing or self._age() >= self._times.fresh:
                await self._refresh(needed=missing or self._age() >= self._times.trusted)
        return self._keys.get(kid)

    def _age(self) -> float:
        return self._clock.monotonic() - self._read_at

    async def _refresh(self, *, needed: bool) -> None:
        now = self._clock.monotonic()
        if now - self._asked_at < self._times.floor:
            # Whoever makes up key ids must not make us hammer the realm.
            if needed and self._read_at < self._asked_at:
                raise KeysUnavailable("the keys of the realm could not be read a moment ago")
            return
        self._asked_at = now
        try:
            document = await self._fetch()
        except KeysUnavailable as error:
            if needed:
                raise
            _log.warning("%s; those known are used on", error)
            return
        self._keys = _usable(document)
        self._read_at = now


def _usable(document: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
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
