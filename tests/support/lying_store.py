"""A store of S3 objects that answers wrongly on demand: short, long, other, compressed, or without an end."""

import asyncio
import gzip
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import md5
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 3
ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>by the test</Message></Error>"


@dataclass(frozen=True)
class Answer:
    """A response before it is sent. `framed`: it has a Content-Length; otherwise the connection ends it."""

    status: int
    headers: dict[str, str]
    body: bytes
    framed: bool = True

    def having(self, **headers: str | None) -> "Answer":
        """The answer with other headers; None removes one."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lowered = {name.lower() for name in named}
        kept = {name: value for name, value in self.headers.items() if name.lower() not in lowered}
        return replace(
            self, headers=kept | {name: value for name, value in named.items() if value is not None}
        )

    @property
    def etag(self) -> str:
        """The header ETag, or ""."""
        return next((value for name, value in self.headers.items() if name.lower() == "etag"), "")

    def encode(self) -> bytes:
        """The bytes of the response."""
        headers = dict(self.headers)
        if self.framed:
            headers.setdefault("Content-Length", str(len(self.body)))
        lines = [
            f"HTTP/1.1 {self.status} -",
            *(f"{name}: {value}" for name, value in headers.items()),
            "",
            "",
        ]
        return "\r\n".join(lines).encode() + self.body


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def is_list(self) -> bool:
        """Whether it asks for a page of a listing."""
        return "list-type" in self.query


Lie = Callable[[Answer], Answer]


@dataclass
class LyingStore:
    """Objects by key, in one bucket. Each of `lies` changes one answer to a GET or a list, in turn."""

    objects: dict[str, bytes] = field(default_factory=dict)
    lies: list[Lie] = field(default_factory=list)
    list_lies: list[Lie] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    etag_of: Callable[[bytes], str] = lambda body: md5(body, usedforsecurity=False).hexdigest()
    url: str = ""

    @property
    def gets(self) -> list[Asked]:
        """The requests for objects."""
        return [asked for asked in self.asked if asked.method == "GET" and not asked.is_list]

    @property
    def lists(self) -> list[Asked]:
        """The requests for pages."""
        return [asked for asked in self.asked if asked.is_list]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve; gives the endpoint."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self.url

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, target, _ = head[0].split(" ")
            parts = urlsplit(target)
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            query = {
                name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()
            }
            asked = Asked(method, unquote(parts.path), query, headers)
            self.asked.append(asked)
            writer.write(self._answer(asked).having(Connection="close").encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def _answer(self, asked: Asked) -> Answer:
        answer = self._page(asked.query) if asked.is_list else self._object(asked)
        lies = self.list_lies if asked.is_list else self.lies
        if asked.method == "HEAD":
            return replace(answer.having(Content_Length=str(len(answer.body))), body=b"", framed=False)
        return lies.pop(0)(answer) if lies else answer

    def _object(self, asked: Asked) -> Answer:
        body = self.objects.get(asked.path.split("/", 2)[2])
        if body is None:
            return Answer(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
        etag = f'"{self.etag_of(body)}"'
        if asked.headers.get("if-match", etag) != etag:
            return Answer(412, {}, b"<Error><Code>PreconditionFailed</Code></Error>")
        first = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        if first is None:
            return Answer(200, {"ETag": etag}, body)
        start = int(first[1])
        if start >= len(body):
            return Answer(
                416, {"Content-Range": f"bytes */{len(body)}"}, b"<Error><Code>InvalidRange</Code></Error>"
            )
        end = min(len(body), int(first[2]) + 1) if first[2] else len(body)
        found = {"ETag": etag, "Content-Range": f"bytes {start}-{end - 1}/{len(body)}"}
        return Answer(206, found, body[start:end])

    def _page(self, query: dict[str, str]) -> Answer:
        after = query.get("continuation-token") or query.get("start-after", "")
        keys = sorted(key for key in self.objects if key.startswith(query.get("prefix", "")) and key > after)
        return Answer(200, {}, listed([(key, self.objects[key]) for key in keys[:PAGE]], len(keys) > PAGE))


def listed(
    objects: list[tuple[str, bytes]], truncated: bool, token: str = "", count: int | None = None
) -> bytes:
    """A page of a listing."""
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{len(body)}</Size>"
        f"<ETag>&quot;{md5(body, usedforsecurity=False).hexdigest()}&quot;</ETag></Contents>"
        for key, body in objects
    )
    token = token or (objects[-1][0] if truncated and objects else "")
    following = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
    return (
        f"<ListBucketResult><Name>b</Name><KeyCount>{len(objects) if count is None else count}</KeyCount>"
        f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{following}{contents}</ListBucketResult>"
    ).encode()


def short(answer: Answer) -> Answer:
    """Half of the body; the Content-Length is that of the whole."""
    return replace(
        answer.having(Content_Length=str(len(answer.body))), body=answer.body[: len(answer.body) // 2]
    )


def endless(answer: Answer) -> Answer:
    """Half of the body without a Content-Length: the connection ends it."""
    return replace(answer, body=answer.body[: len(answer.body) // 2], framed=False)


def unframed(answer: Answer) -> Answer:
    """The whole body without a Content-Length."""
    return replace(answer, framed=False)


def halved(answer: Answer) -> Answer:
    """Half of the body, and a Content-Length that fits it."""
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def half_chunked(answer: Answer) -> Answer:
    """Half of the body in one chunk, and the proper end of a chunked body."""
    half = answer.body[: len(answer.body) // 2]
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(half), half)
    return replace(answer.having(Transfer_Encoding="chunked"), body=body, framed=False)


def padded(answer: Answer) -> Answer:
    """Half of the body and an error message behind it, without a Content-Length."""
    return replace(answer, body=answer.body[: len(answer.body) // 2] + ERROR, framed=False)


def longer(answer: Answer) -> Answer:
    """The body and more."""
    return replace(answer, body=answer.body + b"{}\n")


def longer_unframed(answer: Answer) -> Answer:
    """The body and more, without a Content-Length."""
    return replace(answer, body=answer.body + b"{}\n", framed=False)


def error_body(_: Answer) -> Answer:
    """200 with an error in the body."""
    return Answer(200, {"Content-Type": "application/xml"}, ERROR)


def error_with_etag(answer: Answer) -> Answer:
    """200 with an error in the body, and the headers of the object."""
    return replace(answer, body=ERROR)


def error_with_etag_unframed(answer: Answer) -> Answer:
    """200 with an error in the body, and the headers of the object, without a length."""
    return replace(answer, body=ERROR, framed=False)


def other_etag(answer: Answer) -> Answer:
    """The ETag of another object."""
    return answer.having(ETag='"00000000000000000000000000000000"')


def no_etag(answer: Answer) -> Answer:
    """No ETag."""
    return answer.having(ETag=None)


def other_range(answer: Answer) -> Answer:
    """A part that begins one byte later than it says, and says so."""
    length = len(answer.body)
    found = f"bytes 1-{length - 1}/{length}"
    return replace(answer.having(Content_Range=found), status=206, body=answer.body[1:])


def compressed(answer: Answer) -> Answer:
    """The body as a proxy compresses it, with a weak ETag and without a length."""
    found = answer.having(Content_Encoding="gzip", ETag="W/" + answer.etag)
    return replace(found, body=gzip.compress(answer.body), framed=False)


def compressed_framed(answer: Answer) -> Answer:
    """The body as a proxy compresses it, with the length of what it sends."""
    return replace(answer.having(Content_Encoding="gzip"), body=gzip.compress(answer.body))


def transfer_compressed(answer: Answer) -> Answer:
    """The body, compressed as a transfer encoding."""
    body = gzip.compress(answer.body)
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return replace(answer.having(Transfer_Encoding="gzip, chunked"), body=chunk, framed=False)


def dropped(_: Answer) -> Answer:
    """Nothing."""
    return Answer(0, {}, b"", framed=False)


def miscounted(answer: Answer) -> Answer:
    """A page of a list that says it has more objects than it has."""
    return replace(answer, body=re.sub(rb"<KeyCount>(\d+)", rb"<KeyCount>1\1", answer.body))


def without_end(answer: Answer) -> Answer:
    """A page of a list that does not say whether it is the last one."""
    return replace(answer, body=re.sub(rb"<IsTruncated>.*?</IsTruncated>", b"", answer.body))


def without_one(answer: Answer) -> Answer:
    """A page of a list that lacks its first object, and counts it."""
    return replace(answer, body=re.sub(rb"(?s)<Contents>.*?</Contents>", b"", answer.body, count=1))


READ_LIES: list[Lie] = [
    short,
    endless,
    unframed,
    halved,
    half_chunked,
    padded,
    longer,
    longer_unframed,
    error_body,
    error_with_etag,
    error_with_etag_unframed,
    other_etag,
    no_etag,
    other_range,
    compressed,
    compressed_framed,
    transfer_compressed,
]
"""Every wrong answer to a GET. Of these `unframed` gives the right bytes."""


PAGE_LIES: list[Lie] = [
    short,
    endless,
    halved,
    half_chunked,
    error_body,
    miscounted,
    without_end,
    without_one,
    dropped,
]
"""Wrong answers to the request of a page, made from the right one."""


def nonce(number: int) -> str:
    """A continuation token."""
    return b64encode(b"%d" % number).decode()
