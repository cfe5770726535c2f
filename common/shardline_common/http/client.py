"""A client of one HTTP service: one attempt of a request, with time-outs and a size limit.

The caller retries and interprets the status. This is the only module that sends requests with aiohttp;
aiohttp's exceptions do not leave it.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from shardline_common.http.client_faults import find_fault, words
from shardline_common.http.tls import tls_context
from shardline_common.runtime.threads import run_in_thread

_CHUNK = 1 << 18
_PARSED_ON_THREAD = 1 << 16
OK = 200
# ValueError: an address that is no URL, or a header that HTTP does not allow.
_FAILED = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)


class HttpConnectionError(Exception):
    """There was no complete response.

    `fault` is the meaning of the error; where it is permanent, no retry helps. `name` is the class of the
    client's error, `text` its message, which may be empty.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.fault, source = find_fault(error)
        self.name = type(error).__name__
        self.text = words(source)

    @property
    def detail(self) -> str:
        """The meaning and the message of the error, for people."""
        return f"{self.fault.meaning}: {self.text or self.name}"


class ResponseTooLarge(Exception):
    """The body of a response is over its limit. `start` holds the bytes that were received."""

    def __init__(self, message: str, start: bytes) -> None:
        super().__init__(message)
        self.start = start


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """A service, and how requests to it are made.

    `url` is percent-encoded; the path of a request is appended to it. `headers` are sent with each request;
    they may hold secrets and are never shown. Times are in seconds; None is no limit. `read_seconds` limits
    the time without a byte. `max_bytes` limits the body of a response. `ca_file` (PEM) replaces the system's
    authorities. `keep_cookies`: the cookies of a response are sent with later requests; a load balancer may
    use them to send a client to the same server. `ends_by_close`: a body without a length and without chunks
    is accepted. Set it only where a part of the body cannot be taken for the whole, as of a JSON object.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    connections: int = 8
    connect_seconds: float | None = 10.0
    read_seconds: float | None = 30.0
    total_seconds: float | None = None
    max_bytes: int = 64 << 20
    follow_redirects: bool = False
    keep_cookies: bool = False
    ends_by_close: bool = False


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request.

    `limit`, in bytes, lowers the limit of the options on the body of the response. `ignore_body`: the body is
    not read. `decoded`: a body with a Content-Encoding is decoded; otherwise it is given as it was sent.
    """

    method: str
    path: str = ""
    params: Mapping[str, str] | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    limit: int | None = None
    ignore_body: bool = False
    decoded: bool = True


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete response of any status.

    `retry_after` is the header Retry-After, or "". `encoding`: the Content-Encoding that the body still has,
    in lower case, or "".
    """

    status: int
    body: bytes
    retry_after: str = ""
    encoding: str = ""

    async def json(self) -> Any:
        """The body as JSON; a body over 64 KiB is parsed on a thread. Raises ValueError."""
        if len(self.body) < _PARSED_ON_THREAD:
            return orjson.loads(self.body)
        return await run_in_thread(lambda: orjson.loads(self.body))

    def text(self, max_bytes: int) -> str:
        """The first `max_bytes` bytes of the body as one line of text, for a message."""
        return words(self.body[:max_bytes].decode(errors="replace"))


class HttpClient:
    """Requests to one service. Safe for concurrent use."""

    def __init__(self, session: aiohttp.ClientSession, options: HttpOptions) -> None:
        self._session = session
        self._options = options

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send the request once and read the response to its end.

        Raises:
            HttpConnectionError: there was no complete response. A body that has neither a length nor a last
                chunk is not complete: it may have been cut anywhere.
            ResponseTooLarge: the body is over the limit. The connection is closed and the rest is not read.
        """
        try:
            return await self._send(request)
        except _FAILED as error:
            raise HttpConnectionError(error) from error

    async def _send(self, request: HttpRequest) -> HttpResponse:
        limit = min(request.limit or self._options.max_bytes, self._options.max_bytes)
        async with self._session.request(
            request.method,
            URL(self._options.url + request.path, encoded=True),
            params=request.params,
            data=request.body,
            headers=request.headers,
            allow_redirects=self._options.follow_redirects,
            auto_decompress=request.decoded,
        ) as response:
            received, retry_after = bytearray(), response.headers.get("Retry-After", "")
            if request.ignore_body:
                return HttpResponse(response.status, b"", retry_after)
            async for chunk in response.content.iter_chunked(_CHUNK):
                received += chunk
                if len(received) > limit:
                    # Leaving the context closes the connection, because the body was not read to its end.
                    raise ResponseTooLarge(f"a response is over {limit} bytes", bytes(received))
            if response.status == OK and not (self._options.ends_by_close or _has_end(response)):
                # Whoever closed the connection, it may have been in the middle of the body.
                raise aiohttp.ClientPayloadError("the response has no length, and its connection was closed")
            encoding = "" if request.decoded else response.headers.get("Content-Encoding", "").lower()
            return HttpResponse(response.status, bytes(received), retry_after, encoding)


def _has_end(response: aiohttp.ClientResponse) -> bool:
    """Whether HTTP shows where the body ends: by its length, or by a last chunk."""
    is_chunked = response.headers.get("Transfer-Encoding", "").lower().endswith("chunked")
    return is_chunked or "Content-Length" in response.headers


@asynccontextmanager
async def open_http(options: HttpOptions) -> AsyncIterator[HttpClient]:
    """A client while the context lasts; leaving it closes every connection.

    Raises:
        UsageError: the CA file cannot be read.
    """
    tls = tls_context(options.ca_file)
    timeout = aiohttp.ClientTimeout(
        total=options.total_seconds, sock_connect=options.connect_seconds, sock_read=options.read_seconds
    )
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=options.connections, ssl=tls),
        timeout=timeout,
        headers=options.headers,
        # Without `keep_cookies`, a cookie of one response must not change the next one.
        cookie_jar=None if options.keep_cookies else aiohttp.DummyCookieJar(),
    ) as session:
        yield HttpClient(session, options)
