"""ThemisDB over HTTP: the only file that speaks to it. Errors are translated here."""

import random
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from yarl import URL

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.ports.clock import Clock
from shardline_producer.sources.themis.limiter import RateLimiter

_ATTEMPTS = 3
_MOST_SILENCE = 300.0
_REQUEST_BYTES = 1 << 20
_OK, _BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _MISSING, _TOO_MANY, _BROKEN = 200, 400, 401, 403, 404, 429, 500


@dataclass(frozen=True, slots=True)
class ThemisOptions:
    """Where ThemisDB is, and how to treat it. Seconds, bytes, connections."""

    url: str
    token: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    timeout: float = 60.0
    connections: int = 8
    page: int = 1000
    answer_bytes: int = 16 << 20


class TooLarge(Exception):
    """An answer is larger than this process wants to hold; ask for less."""


class Rejected(Exception):
    """The server answered 400; the message is its own."""


class ThemisClient:
    """Requests over a few kept-open connections.

    All methods raise SourceUnavailable (try again later) and JobFailed (`source_invalid`: the token, or
    a server that is not ThemisDB).
    """

    def __init__(
        self, session: aiohttp.ClientSession, options: ThemisOptions, limiter: RateLimiter, clock: Clock
    ) -> None:
        self._session = session
        self._options = options
        self._limiter = limiter
        self._clock = clock
        # A name and a password there would be another kind of authorization, which ThemisDB refuses.
        self._base = URL(options.url).with_user(None)

    async def query(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of POST /query.

        Raises:
            Rejected: an index is missing, or the query is wrong.
            TooLarge: ask for fewer rows.
        """
        return self._json(await self._ask("POST", "/query", body, f"table '{body['table']}'"))

    async def entity(self, table: str, key: str) -> str | None:
        """The stored text of a row, or None where there is none."""
        answer = await self._ask("GET", f"/entities/{table}:{key}", None, f"row '{key}' of '{table}'")
        if answer.status == _MISSING:
            return None
        blob = self._json(answer).get("blob")
        if not isinstance(blob, str):
            raise self._no_themis(f"the answer for row '{key}' of '{table}' has no text 'blob'")
        return blob

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of any other POST. Raises Rejected."""
        return self._json(await self._ask("POST", path, body, f"table '{body.get('table')}'"))

    async def health(self) -> str:
        """The server's version."""
        return str(self._json(await self._ask("GET", "/health", None, "health")).get("version"))

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, what: str) -> "_Answer":
        data = b"" if body is None else orjson.dumps(body)
        if len(data) > _REQUEST_BYTES:
            raise JobFailed(
                FailureCode.SOURCE_INVALID, f"a request of {len(data)} bytes; ThemisDB takes 1 MiB"
            )
        failures, silence = 0, 0.0
        while True:
            await self._limiter.wait()
            try:
                answer = await self._once(method, path, data)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failures += 1
                if failures == _ATTEMPTS:
                    raise self._away(error, what) from error
            else:
                if answer.status == _TOO_MANY and silence < _MOST_SILENCE:
                    silence += answer.retry_after
                    self._limiter.pause(answer.retry_after)
                    continue
                if answer.status < _BROKEN:
                    return answer
                failures += 1
                if failures == _ATTEMPTS:
                    raise self._unable(answer, what)
            await self._clock.sleep(random.uniform(0.0, 0.2 * 2**failures))  # noqa: S311 - jitter, no secret

    async def _once(self, method: str, path: str, data: bytes) -> "_Answer":
        # The server takes a path as it stands: nothing may be percent-encoded on the way.
        url = self._base.with_path(self._base.path.rstrip("/") + path, encoded=True)
        headers = {"Content-Type": "application/json"} if data else {}
        async with self._session.request(
            method, url, data=data or None, headers=headers, allow_redirects=False
        ) as response:
            chunks, size = [], 0
            async for chunk in response.content.iter_chunked(1 << 18):
                chunks.append(chunk)
                size += len(chunk)
                if size > self._options.answer_bytes:
                    response.close()
                    raise TooLarge
            return _Answer(response.status, _seconds(response.headers.get("Retry-After")), b"".join(chunks))

    def _json(self, answer: "_Answer") -> dict[str, Any]:
        try:
            value = orjson.loads(answer.data)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            raise self._no_themis(f"it answered {answer.status} without a JSON object")
        if answer.status == _OK:
            return value
        message = str(value.get("message") or value.get("error"))
        if answer.status in (_UNAUTHORIZED, _FORBIDDEN):
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"ThemisDB at {self._shown} refuses the token: {message}",
                hint="set THEMIS_TOKEN to a token with the scope data:read",
            )
        if answer.status == _BAD_REQUEST:
            raise Rejected(message)
        if answer.status == _TOO_MANY:
            raise self._unable(answer, "its rate limit")
        raise self._no_themis(f"it answered {answer.status}: {message}")

    @property
    def _shown(self) -> str:
        return shown(self._options.url)

    def _no_themis(self, found: str) -> JobFailed:
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"{self._shown} does not answer as ThemisDB does: {found}",
            hint="set THEMIS_URL to ThemisDB's own address",
        )

    def _unable(self, answer: "_Answer", what: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"ThemisDB at {self._shown} answered {answer.status} when asked for {what}",
            hint="see the server's log; lower THEMIS_RATE where it limits requests",
        )

    def _away(self, error: Exception, what: str) -> SourceUnavailable:
        if isinstance(
            error, aiohttp.ServerDisconnectedError | ConnectionResetError | aiohttp.ClientPayloadError
        ):
            return SourceUnavailable(
                f"ThemisDB at {self._shown} dropped the connection when asked for {what}",
                hint="one entity in a table that is no JSON ends the server when the table is read: "
                "see its log, and delete that entity",
            )
        said = str(error) or type(error).__name__
        return SourceUnavailable(
            f"ThemisDB at {self._shown} cannot be reached ({what}): {said}",
            hint="check THEMIS_URL, and that ThemisDB runs",
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: float
    data: bytes


def _seconds(header: str | None) -> float:
    try:
        return min(_MOST_SILENCE, max(0.1, float(header or 1)))
    except ValueError:
        return 1.0


def shown(url: str) -> str:
    """An address without a user's name and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@asynccontextmanager
async def open_themis(
    options: ThemisOptions, limiter: RateLimiter, clock: Clock
) -> AsyncIterator[ThemisClient]:
    """Connect; leaving the context closes every connection.

    Raises:
        JobFailed: the CA bundle cannot be read.
    """
    timeout = aiohttp.ClientTimeout(total=10 * options.timeout, sock_connect=10, sock_read=options.timeout)
    connector = aiohttp.TCPConnector(limit=options.connections, ssl=_trust(options.ca_bundle))
    headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        yield ThemisClient(session, options, limiter, clock)


def _trust(ca_bundle: str | None) -> ssl.SSLContext | bool:
    if ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ssl.SSLError) as error:
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"the CA bundle {ca_bundle} cannot be read: {error}",
            hint="set THEMIS_CA_BUNDLE",
        ) from None
