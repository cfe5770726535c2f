"""Answers of a store in which one value is odd, given by a client without a network."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from shardline_common.http.client import HttpOptions, HttpRequest, HttpResponse

Path = tuple[str | int, ...]
Answers = Callable[[HttpRequest], Any]
"""The true answer to a request: JSON, or None for the status 404."""

_HERE = "@@odd@@"
_MOST_REQUESTS = 400
DEEP = "[" * 2000 + "]" * 2000
# JSON, and what a program may write in its place.
ODD: Mapping[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "number": b"-1.5",
    "1e400": b"1e400",
    "400 digits": b"1" * 400,
    "5000 digits": b"9" * 5000,
    "80 bits": b"1208925819614629174706176",
    "empty text": b'""',
    "text": b'"x\\u0000\\"\\n"',
    "half a pair": b'"cut \\ud83d"',
    "no UTF-8": b'"\xff\xe4"',
    "empty list": b"[]",
    "list": b'[null, {"a": 1e400}]',
    "object": b'{"\\ud800": NaN}',
    "empty object": b"{}",
    "deep": DEEP.encode(),
    "same key": b'{"id": 1, "id": 2}',
}


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """The places of a JSON value: itself, and all that it holds."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from paths(inner, (*path, name))


def with_odd(value: Any, path: Path, odd: bytes) -> bytes:
    """The JSON of a value that has `odd` at a place."""
    return json.dumps(_replaced(value, path)).encode().replace(f'"{_HERE}"'.encode(), odd)


def _replaced(value: Any, path: Path) -> Any:
    if not path:
        return _HERE
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(value[path[0]], path[1:])
    return copy


class OddClient:
    """Implements what `HttpStore` and `ThemisClient` need of HttpClient.

    `odd`: the place and the bytes of an odd value in the answers for which `at` is true.
    """

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.at: Callable[[HttpRequest], bool] = lambda _: False
        self.odd: tuple[Path, bytes] = ((), b"")
        self.requests = 0

    async def send(self, request: HttpRequest) -> HttpResponse:
        """The answer to a request. Fails when there are so many that they will never end."""
        self.requests += 1
        assert self.requests < _MOST_REQUESTS, f"{request.path} is requested again and again"
        value = self.answers(request)
        if value is None:
            return HttpResponse(404, b'{"error": "not_found"}')
        body = json.dumps(value).encode()
        if self.at(request):
            # The answer to another question may not have that place.
            with suppress(LookupError, TypeError):
                body = with_odd(value, *self.odd)
        return HttpResponse(200, body)

    @asynccontextmanager
    async def opened(self, options: HttpOptions) -> AsyncIterator["OddClient"]:  # noqa: ARG002 - as open_http
        """In place of `open_http`."""
        yield self
