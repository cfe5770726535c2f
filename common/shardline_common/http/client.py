"""JSON over HTTP to a store that is read: time-outs, back-off, a size limit, and errors that speak.

The one file of the sources that knows the HTTP client.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from yarl import URL

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.http.tls import tls_context
from shardline_common.runtime.threads import run_in_thread

_CHUNK = 1 << 18
_CONNECTIONS = 8
_BIG = 1 << 16
_DENIED = (401, 403)
_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class TooMuch(Exception):
    """An answer is over the limit of its request; `start` is what came of it."""

    def __init__(self, message: str, start: bytes) -> None:
        super().__init__(message)
        self.start = start


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """A store's address and how patient its client is. `headers` may hold secrets and are never shown."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    timeout: float = 30.0
    attempts: int = 4
    max_bytes: int = 64 << 20
    address_setting: str = "its address"
    secret_setting: str = "its credentials"  # noqa: S105 - a setting's name


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an answer that is neither a refusal nor an outage."""

    status: int
    body: bytes

    async def json(self) -> Any:
        """The body as JSON; a big one is parsed on a thread. Raises ValueError."""
        if len(self.body) < _BIG:
            return orjson.loads(self.body)
        return await run_in_thread(lambda: orjson.loads(self.body))


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    params: Mapping[str, str] | None
    body: bytes | None
    limit: int


class HttpStore:
    """Requests to one store. Safe for concurrent use."""

    def __init__(self, session: aiohttp.ClientSession, options: HttpOptions) -> None:
        self._session = session
        self._options = options

    @property
    def place(self) -> str:
        """The store and its address, for messages."""
        return f"{self._options.name} at {self._options.url}"

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, *, most: int | None = None
    ) -> Answer:
        """A GET of at most `most` bytes, where that is below the store's limit. Same errors as `post`."""
        limit = min(most or self._options.max_bytes, self._options.max_bytes)
        return await self._ask(_Request("GET", path, params, None, limit))

    async def post(self, path: str, body: Any, params: Mapping[str, str] | None = None) -> Answer:
        """A POST that only reads, so that it may be repeated.

        Raises:
            SourceUnavailable: the store did not answer, or answered that it cannot serve now.
            JobFailed: the credentials are refused (`source_invalid`).
            TooMuch: the answer is over the limit.
        """
        limit = self._options.max_bytes
        return await self._ask(_Request("POST", path, params, orjson.dumps(body), limit))

    def invalid(self, message: str, hint: str | None = None) -> JobFailed:
        """The error of something that is wrong for good in this store."""
        return JobFailed(FailureCode.SOURCE_INVALID, f"{self.place}: {message}", hint=hint)

    async def json(self, answer: Answer, what: str) -> Any:
        """The JSON of an answer whose status is 200.

        Raises:
            JobFailed: another status, with the store's own words; or no JSON.
        """
        if answer.status != 200:  # noqa: PLR2004 - OK
            said = answer.body[:300].decode(errors="replace").strip()
            raise self.invalid(f"cannot {what}: it answers {answer.status} {said}")
        try:
            return await answer.json()
        except ValueError:
            raise self.invalid(
                f"cannot {what}: the answer is not JSON", f"check {self._options.address_setting}"
            ) from None

    async def _ask(self, request: "_Request") -> Answer:
        last = self._options.attempts
        for attempt in range(1, last + 1):
            try:
                answer = await self._once(request)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(error, aiohttp.ClientSSLError):
                    hint = "check its certificate, and which CA the settings name"
                    raise self._unavailable(str(error), hint) from error
                if attempt == last:
                    raise self._unavailable(f"{type(error).__name__}: {error}") from error
            else:
                if answer.status in _DENIED:
                    hint = f"check {self._options.secret_setting}"
                    raise self.invalid(f"it refuses the credentials ({answer.status})", hint)
                if answer.status not in _AGAIN:
                    return answer
                if attempt == last:
                    said = answer.body[:200].decode(errors="replace").strip()
                    raise self._unavailable(f"it answers {answer.status} {said}")
            # Full jitter: many readers that failed together must not come back together.
            await asyncio.sleep(random.uniform(0.0, min(5.0, 0.1 * 2**attempt)))  # noqa: S311 - jitter
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, request: "_Request") -> Answer:
        url = URL(self._options.url + request.path, encoded=True)
        async with self._session.request(
            request.method, url, params=request.params, data=request.body, allow_redirects=False
        ) as response:
            received = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                received += chunk
                if len(received) > request.limit:
                    # Leaving the context closes the connection: the rest is not read.
                    text = f"{self.place}: an answer is over {request.limit} bytes"
                    raise TooMuch(text, bytes(received))
            return Answer(response.status, bytes(received))

    def _unavailable(self, why: str, hint: str | None = None) -> SourceUnavailable:
        hint = hint or f"is it up? {self._options.address_setting} tells where it is"
        return SourceUnavailable(f"{self.place} cannot be read ({why})", hint=hint)


@asynccontextmanager
async def open_http(options: HttpOptions) -> AsyncIterator[HttpStore]:
    """A client for as long as the context lasts; leaving it closes every connection.

    Raises:
        UsageError: the CA file cannot be read.
    """
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=min(10.0, options.timeout), sock_read=options.timeout
    )
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=tls_context(options.ca_file))
    headers = {"Content-Type": "application/json", "Accept": "application/json", **options.headers}
    # The cookie of one answer must not decide the next one.
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=headers, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield HttpStore(session, options)
