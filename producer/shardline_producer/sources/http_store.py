"""A store that is read as JSON over HTTP, with retries and errors that name the store and its settings."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.http.client import (
    OK,
    HttpClient,
    HttpConnectionError,
    HttpOptions,
    HttpRequest,
    HttpResponse,
    open_http,
)
from shardline_common.http.client_faults import words
from shardline_common.runtime.retry import Backoff, TransientError, retry_attempts
from shardline_producer.sources.exact_json import parse_on_thread

_DENIED = (401, 403)
_RETRIED = (408, 425, 429)
_SERVER_ERROR = 500
_BACKOFF = Backoff(base=0.1, cap=5.0)
# What code raises that reads a JSON value of another form than it expects.
_OTHER_FORM = (LookupError, TypeError, ValueError, AttributeError)
Check = Callable[[Any], str | None]
"""Called with the JSON of a response: why it is not the whole answer, as a sentence; None when it is.

A LookupError, TypeError, ValueError or AttributeError that it raises means that the JSON has another form.
"""
CheckBytes = Callable[[HttpResponse], str | None]
"""Called with a response that is no JSON: why its body is not the whole one; None when it is."""


@dataclass(frozen=True, slots=True)
class JsonResponse(HttpResponse):
    """A response with the status 200 whose body was parsed, and dropped."""

    value: Any = None

    async def json(self) -> Any:
        """The JSON of the body."""
        return self.value


@dataclass(frozen=True, slots=True)
class HttpStoreOptions:
    """The name and address of a store, and how requests to it are made.

    `timeout` limits the seconds without a byte, `attempts` the attempts of a request, `max_bytes` a response.
    `headers` may hold secrets and are never shown. `address_setting` and `secret_setting` name the settings
    in hints.
    """

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    timeout: float = 30.0
    attempts: int = 4
    max_bytes: int = 64 << 20
    address_setting: str = "its address"
    secret_setting: str = "its credentials"  # noqa: S105 - a setting's name

    @property
    def http(self) -> HttpOptions:
        """The options of the HTTP client."""
        return HttpOptions(
            url=self.url,
            headers={"Content-Type": "application/json", "Accept": "application/json", **self.headers},
            ca_file=self.ca_file,
            connect_seconds=min(10.0, self.timeout),
            read_seconds=self.timeout,
            max_bytes=self.max_bytes,
        )


class HttpStore:
    """Requests to one store. Safe for concurrent use."""

    def __init__(self, client: HttpClient, options: HttpStoreOptions) -> None:
        self._client = client
        self._options = options

    @property
    def address(self) -> str:
        """The store's name and address, for messages."""
        return f"{self._options.name} at {self._options.url}"

    async def get(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        limit: int | None = None,
        check: Check = lambda _: None,
    ) -> HttpResponse:
        """GET JSON from a path; `limit` lowers the limit on the bytes of the response. Raises as `post`."""
        return await self._request(HttpRequest("GET", path, params, limit=limit), check)

    async def get_bytes(
        self, path: str, params: Mapping[str, str], *, limit: int, check: CheckBytes
    ) -> HttpResponse:
        """GET a body of any type, as it was sent: a body that the server compressed stays compressed.

        Args:
            path: its path.
            params: the parameters of the query.
            limit: lowers the limit on the bytes of the response.
            check: a response that fails it is requested again.

        Raises as `post`.
        """
        headers = {"Accept": "*/*", "Accept-Encoding": "gzip"}
        request = HttpRequest("GET", path, params, headers=headers, limit=limit, decoded=False)
        return await self._request(request, None, check)

    async def post(
        self,
        path: str,
        body: object,
        params: Mapping[str, str] | None = None,
        *,
        check: Check = lambda _: None,
    ) -> HttpResponse:
        """POST a JSON body. The request must only read, because it may be sent again.

        A response with the status 200 that is no JSON, that is an error, or that fails the check, is
        requested again: it may have been cut on its way. If it never is JSON, the last response is returned.

        Raises:
            SourceUnavailable: after all attempts there was no response, a transient status, JSON that is cut
                or holds NaN, an error in place of the answer, or a response that fails the check.
            JobFailed: the credentials are refused, its certificate is not trusted, or its address is no URL
                (`source_invalid`).
            ResponseTooLarge: the response is over the limit.
        """
        return await self._request(HttpRequest("POST", path, params, orjson.dumps(body)), check)

    def invalid(self, message: str, hint: str | None = None) -> JobFailed:
        """The error `source_invalid` of this store, for a failure that no retry can change."""
        return JobFailed(FailureCode.SOURCE_INVALID, f"{self.address}: {message}", hint=hint)

    async def json(self, response: HttpResponse, what: str) -> Any:
        """The JSON of a response with the status 200. `what` completes the message "cannot {what}: …".

        Raises:
            JobFailed: the response has another status, or is not JSON (`source_invalid`).
        """
        if response.status != OK:
            raise self.invalid(f"cannot {what}: it answers {response.status} {self._said(response, 300)}")
        try:
            return await response.json()
        except ValueError:
            raise self.invalid(
                f"cannot {what}: the response is not JSON: {self._said(response, 200)}",
                f"check {self._options.address_setting}",
            ) from None

    async def fields(self, response: HttpResponse, what: str, **kinds: type) -> dict[str, Any]:
        """The JSON object of a response, which has at least these fields, each of its kind. See `json`.

        Raises:
            JobFailed: as `json`, or the response is another JSON, as another server gives it.
        """
        found = await self.json(response, what)
        wrong = [
            name
            for name, kind in kinds.items()
            if not isinstance(found, dict) or not isinstance(found.get(name), kind)
        ]
        if wrong:
            raise self.invalid(
                f"cannot {what}: the response is not of {self._options.name}, it has no {wrong[0]}",
                f"check {self._options.address_setting}",
            )
        return dict(found)

    async def _request(
        self, request: HttpRequest, check: Check | None, check_bytes: CheckBytes = lambda _: None
    ) -> HttpResponse:
        """Send a request until its response is whole. `check`: it must be JSON, and pass this."""
        left = self._options.attempts

        async def attempt() -> HttpResponse:
            nonlocal left
            left -= 1
            response = await self._attempt(request)
            if response.status != OK:
                return response
            if (problem := check_bytes(response)) is not None:
                raise TransientError(self._unavailable(problem))
            return response if check is None else await self._checked(response, check, is_last=not left)

        return await retry_attempts(attempt, self._options.attempts, _BACKOFF, asyncio.sleep)

    async def _checked(self, response: HttpResponse, check: Check, *, is_last: bool) -> HttpResponse:
        try:
            # Bytes that are no UTF-8 were changed on their way, unless they come each time.
            value = await parse_on_thread(response.body, any_bytes=is_last)
        except ValueError as error:
            if is_last and not _begins_as_json(response.body):
                # The caller names it: it is the response of another server.
                return response
            why = f"the response is not JSON to its end: {words(error)}"
            raise TransientError(self._unavailable(why, "its answer is not JSON")) from None
        if (said := _error_in(value)) is not None:
            why = f"it answers an error with the status 200: {self._masked(said, 300)}"
            raise TransientError(self._unavailable(why, "it answers an error"))
        try:
            problem = check(value)
        except _OTHER_FORM as error:
            problem = f"its answer has another form than expected: {type(error).__name__}: {words(error)}"
        if problem is not None:
            raise TransientError(self._unavailable(problem))
        return JsonResponse(response.status, b"", response.retry_after, value=value)

    async def _attempt(self, request: HttpRequest) -> HttpResponse:
        try:
            response = await self._client.send(request)
        except HttpConnectionError as error:
            hint = error.fault.hint(self._options.address_setting, "the CA file in its settings")
            if error.fault.permanent:
                raise self.invalid(f"it cannot be connected to ({error.detail})", hint) from error
            raise TransientError(self._unavailable(error.detail, error.fault.meaning, hint)) from error
        if response.status in _DENIED:
            hint = f"check {self._options.secret_setting}"
            said = f"{response.status} {self._said(response, 200)}".strip()
            raise self.invalid(f"it refuses the credentials ({said})", hint)
        if response.status in _RETRIED or response.status >= _SERVER_ERROR:
            status = f"it answers {response.status}"
            raise TransientError(self._unavailable(f"{status} {self._said(response, 200)}", status))
        return response

    def _said(self, response: HttpResponse, limit: int) -> str:
        return self._masked(response.body[: 1 << 16].decode(errors="replace"), limit)

    def _masked(self, text: str, limit: int) -> str:
        # Servers echo what they refuse. Secrets are masked first: a cut one would not be found.
        return words(text, _secrets(self._options.headers))[:limit]

    def _unavailable(
        self, why: str, kind: str = "its answer is not whole", hint: str | None = None
    ) -> SourceUnavailable:
        hint = hint or f"start it, or correct {self._options.address_setting}"
        return SourceUnavailable(
            f"{self.address} cannot be read ({why})", hint=hint, cause=f"{self.address}: {kind}"
        )


def _begins_as_json(body: bytes) -> bool:
    """Whether the body may be the start of a JSON object or list, or nothing of it."""
    return body.lstrip()[:1] in (b"", b"{", b"[")


def _error_in(value: Any) -> str | None:
    """The error that a JSON object holds in place of an answer; None if it holds none.

    CouchDB answers {"error": …, "reason": …} and ChromaDB {"error": …, "message": …}, also behind a status
    200 that was sent before the error happened.
    """
    error = value.get("error") if isinstance(value, dict) else None
    if not error:
        return None
    rest = [value.get(name) for name in ("reason", "message") if isinstance(value.get(name), str)]
    return ": ".join(str(part) for part in (error, *rest))


def _secrets(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The values of headers, and what they consist of: a token, or a password in Base64."""
    found = {part for value in headers.values() for part in (value, value.rpartition(" ")[2])}
    for part in list(found):
        with suppress(ValueError):
            found.add(b64decode(part, validate=True).decode().rpartition(":")[2])
    # The longest first: a shorter one may be a part of it.
    return tuple(sorted(found, key=len, reverse=True))


@asynccontextmanager
async def open_http_store(options: HttpStoreOptions) -> AsyncIterator[HttpStore]:
    """A client of the store; leaving the context closes every connection.

    Raises:
        UsageError: the CA file cannot be read.
    """
    async with open_http(options.http) as client:
        yield HttpStore(client, options)
