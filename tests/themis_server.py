"""A fake of ThemisDB's HTTP server, as published at HEAD: the same answers and the same bugs.

tests/unit/test_themis_server.py replays recorded exchanges with the real server against it. Numbers in
brackets name those exchanges. Beside what the tables do (tests/themis_tables.py):

- Entities and queries need a token (02-04, 29), indexes need none (31); one token may only read (55).
- `policies` decide after the scopes, and not on the user `admin` (requireAccess in http_server.cpp, authorize
  in policy_engine.cpp). SHIPPED_POLICIES are the server's config/policies.json: they allow its read-only user
  `data.read` on /entities/, although the server asks for the action `read` there.
- 100 requests a minute, then 429 with Retry-After (98).
- The connection of a request over 1 MiB is closed without an answer (90).
- A path is taken as it stands, without percent-decoding; a key with '/', '\\' or '..' is refused (93).
- AQL is refused (14-16) and the export is not routed (12, 13).
- A request that ends the real process (A40, A42) closes every connection here, until `restart`.
"""

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tests.themis_tables import Killed, QueryRefused, ThemisTables

ADMIN, READER = "admin-token-for-tests", "readonly-token-for-tests"
USERS = {ADMIN: "admin", READER: "readonly"}
_BODY_LIMIT = 1 << 20
_HEADERS = {"Server": "THEMIS/0.1.0", "X-Content-Type-Options": "nosniff", "Content-Type": "application/json"}
_PARSE_ERROR = (
    "[json.exception.parse_error.101] parse error at line 1, column {}: syntax error while parsing value - "
    "unexpected end of input; expected '[', '{{', or a literal"
)
_TYPE_ERROR = "[json.exception.type_error.302] type must be {}, but is {}"
_KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}

SHIPPED_POLICIES: list[dict[str, Any]] = [
    {
        "subjects": ["readonly"],
        "actions": ["metrics.read", "config.read", "data.read", "query", "vector.search", "cdc.read"],
        "resources": ["/metrics", "/config", "/entities/", "/query", "/vector/search", "/changefeed"],
    },
    {"id": "hr-deny-external", "subjects": ["*"], "actions": ["*"], "resources": ["/entities/hr:"]}
    | {"effect": "deny"},
]

Answer = tuple[int, dict[str, Any]]


class _ConnectionClosed(Exception):
    """The connection is closed without an answer; the server goes on."""


@dataclass(frozen=True)
class HttpCall:
    """One request. The names of headers are in lower case; the path is as it was sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


async def _read(reader: asyncio.StreamReader) -> HttpCall:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    size = int(headers.get("content-length", "0"))
    if size > _BODY_LIMIT:
        raise _ConnectionClosed
    return HttpCall(method, path, headers, await reader.readexactly(size))


@dataclass
class RequestBucket:
    """The rate limit of one user, refilled steadily. Without `per_minute` there is no limit."""

    per_minute: int | None = None
    tokens: float = 0.0
    at: float = 0.0
    now: Callable[[], float] = time.monotonic

    def wait(self) -> int:
        """0 where the request may pass, else the seconds to wait."""
        if self.per_minute is None:
            return 0
        now = self.now()
        full = float(self.per_minute)
        self.tokens = min(full, self.tokens + (now - self.at) * full / 60)
        self.at = now
        if self.tokens < 1:
            return math.ceil((1 - self.tokens) * 60 / full)
        self.tokens -= 1
        return 0


@dataclass
class ThemisServer:
    """The server's state, the requests it received, and the faults that a test sets.

    `before` runs before each request; `killed` closes every connection without an answer; `gateway` is the
    status of a proxy's page that answers in its place then. `refused` counts the answers 429. `asked` counts
    the requests by path, `queries` holds the bodies of POST /query. `altered` changes the body of an answer;
    GET /entities does not find the keys in `hidden`.
    """

    tables: ThemisTables = field(default_factory=ThemisTables)
    scopes: dict[str, set[str]] = field(
        default_factory=lambda: {ADMIN: {"data:read", "data:write"}, READER: {"data:read"}}
    )
    policies: list[dict[str, Any]] = field(default_factory=list)
    now: Callable[[], float] = time.monotonic
    killed: bool = False
    gateway: int | None = None
    altered: Callable[[HttpCall, bytes], bytes] | None = None
    hidden: set[str] = field(default_factory=set)
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    queries: list[dict[str, Any]] = field(default_factory=list)
    before: Callable[[HttpCall], Awaitable[None]] | None = None
    refused: int = 0
    open_now: int = 0
    most_open: int = 0
    bucket: RequestBucket = field(default_factory=RequestBucket)
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    def fill(self, table: str, key: str, rows: list[dict[str, Any]], *, indexed: bool = True) -> None:
        """Store rows under the value of their `key`, and index it."""
        for row in rows:
            self.tables.put(f"{table}:{row[key]}", json.dumps(row, ensure_ascii=False))
        if indexed:
            self.index(table, key, "range")

    def index(self, table: str, column: str, kind: str = "equality") -> None:
        """Create an index and rebuild it."""
        self.tables.create_index(table, column, kind)
        self.tables.rebuild(table, column)

    def limit(self, per_minute: int | None, *, left: int | None = None) -> None:
        """Limit the requests of a user per minute; `left` are the ones left now."""
        tokens = float(left if left is not None else per_minute or 0)
        self.bucket = RequestBucket(per_minute, tokens, self.now(), self.now)

    def restart(self) -> None:
        """Answer again after the server was killed."""
        self.killed = False

    async def connected(self) -> int:
        """How many connections clients hold open; a few rounds of the loop notice closed ones."""
        for _ in range(20):
            await asyncio.sleep(0)
        return len(self.connections)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, or close it."""
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            while True:
                await self._serve_one(await _read(reader), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        except _ConnectionClosed:
            writer.transport.abort()
        except Killed:
            self.killed = True
            writer.transport.abort()
        finally:
            self.connections.discard(task)

    async def _serve_one(self, request: HttpCall, writer: asyncio.StreamWriter) -> None:
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            if self.before is not None:
                await self.before(request)
            status, answer, headers = self._answer_or_page(request)
        finally:
            self.open_now -= 1
        body = json.dumps(answer, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        body = self.altered(request, body) if self.altered else body
        headers = _HEADERS | headers | {"Content-Length": str(len(body))}
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *map(": ".join, headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    def _answer_or_page(self, request: HttpCall) -> tuple[int, Any, dict[str, str]]:
        try:
            return self._answer(request)
        except Killed:
            if self.gateway is None:
                raise
            self.killed = True
            return self.gateway, "<html>Bad Gateway</html>", {}

    def _answer(self, request: HttpCall) -> tuple[int, Any, dict[str, str]]:
        if self.killed:
            raise Killed
        path = request.path.partition("?")[0]
        self.asked[
            f"{request.method} {path if path.startswith('/query') else '/'.join(path.split('/')[:2])}"
        ] += 1
        wait = 0 if request.headers.get("x-forwarded-for") == "127.0.0.1" else self.bucket.wait()
        if wait:
            return self._limited(wait)
        if path.startswith("/entities/") and not _segment(path.removeprefix("/entities/")):
            return (*_error(400, "invalid entity key"), {})
        if refusal := self._refusal(request, path):
            return refusal
        return (*self._route(request.method, path, request.body), {})

    def _limited(self, wait: int) -> tuple[int, dict[str, Any], dict[str, str]]:
        self.refused += 1
        headers = {
            "Retry-After": str(wait),
            "X-RateLimit-Limit": str(self.bucket.per_minute),
            "X-RateLimit-Remaining": "0",
        }
        text = f"Rate limit exceeded. Please retry after {wait} seconds."
        answer = {
            "error": "Too Many Requests",
            "message": text,
            "retry_after_seconds": wait,
            "status_code": 429,
        }
        return 429, answer, headers

    def _refusal(self, request: HttpCall, path: str) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        if path != "/query" and not path.startswith("/entities"):
            return None
        scope = "data:read" if path == "/query" or request.method == "GET" else "data:write"
        asks = {"WWW-Authenticate": 'Bearer realm="themis"'}
        given = request.headers.get("authorization")
        if given is None:
            return (
                401,
                {"error": "missing_authorization", "message": "Missing Authorization header"},
                asks,
            )
        if not given.startswith("Bearer "):
            return (
                401,
                {"error": "invalid_authorization", "message": "Invalid Bearer token format"},
                asks,
            )
        scopes = self.scopes.get(given.removeprefix("Bearer "))
        if scopes is None:
            return 403, {"error": "forbidden", "message": "Invalid or missing token"}, {}
        if scope not in scopes:
            return 403, {"error": "forbidden", "message": f"Missing required scope: {scope}"}, {}
        actions = {"GET": "read", "DELETE": "delete"}
        action = "query" if path == "/query" else actions.get(request.method, "write")
        return self._denied(USERS.get(given.removeprefix("Bearer "), ""), action, path)

    def _denied(self, user: str, action: str, path: str) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        if user == "admin" or not self.policies:
            return None
        denied = {"error": "policy_denied", "message": "no_matching_policy"}
        for policy in self.policies:
            named = {"*", user}.intersection(policy["subjects"]) and {"*", action}.intersection(
                policy["actions"]
            )
            if named and any(path.startswith(one) for one in policy["resources"]):
                if policy.get("effect", "allow") == "allow":
                    return None
                return 403, denied | {"message": "matched_deny_policy", "policy_id": policy["id"]}, {}
        return 403, denied, {}

    def _route(self, method: str, path: str, body: bytes) -> Answer:
        if path == "/health":
            return 200, {"database": "themis", "status": "healthy", "uptime_seconds": 0, "version": "0.1.0"}
        if path.startswith("/entities/"):
            return self._entity(method, path.removeprefix("/entities/"), body)
        routes = {"/entities": self._put, "/query": self._query, "/query/aql": self._aql}
        routes |= {"/index/create": self._create}
        routes |= {"/index/rebuild": self._rebuild, "/index/reindex": self._reindex}
        if method != "POST" or path not in routes:
            return _error(404, "Endpoint not found")
        try:
            return routes[path](_loads(body, "invalid" if path == "/query/aql" else "Invalid"))
        except QueryRefused as refused:
            return _error(400, str(refused))

    def _aql(self, _: dict[str, Any]) -> Answer:
        return _error(400, "NUL byte not allowed")

    def _entity(self, method: str, key: str, body: bytes) -> Answer:
        if method == "PUT":
            return self._put({"key": key} | _loads(body, "Invalid"))
        if method == "DELETE":
            self.tables.delete(key)
            return 200, {"key": key, "success": True}
        if method != "GET":
            return _error(404, "Endpoint not found")
        blob = None if key in self.hidden else self.tables.blobs.get(key)
        return (200, {"blob": blob, "key": key}) if blob is not None else _error(404, "Entity not found")

    def _put(self, value: dict[str, Any]) -> Answer:
        if "blob" not in value:
            return _error(400, "Missing 'blob' field")
        if refusal := _not_text(value["blob"]):
            return refusal
        table, _, pk = value["key"].partition(":")
        if not table or not pk:
            return _error(400, "Key must be in format 'table:pk'")
        self.tables.put(value["key"], value["blob"])
        size = len(value["blob"].encode())
        return 201, {"blob_size": size, "key": value["key"], "success": True}

    def _query(self, query: dict[str, Any]) -> Answer:
        self.queries.append(query)
        if "table" not in query:
            return _error(400, "Missing 'table'")
        texts = [query["table"], *(one["value"] for one in query.get("predicates", []))]
        texts += [one[bound] for one in query.get("range", []) for bound in ("gte", "lte") if bound in one]
        for text in texts:
            if refusal := _not_text(text):
                return refusal
        table, keys = query["table"], self.tables.keys(query)
        if query.get("return") == "keys":
            return 200, {"count": len(keys), "keys": keys, "table": table}
        rows = self.tables.entities(table, keys)
        return 200, {"count": len(rows), "decrypted": False, "entities": rows, "table": table}

    def _create(self, value: dict[str, Any]) -> Answer:
        table, column, kind = value["table"], value["column"], value.get("type", "equality")
        self.tables.create_index(table, column, kind)
        shown = {"type": kind} if kind == "range" else {"unique": False}
        return 200, {"column": column, "success": True, "table": table} | shown

    def _rebuild(self, value: dict[str, Any]) -> Answer:
        entries = self.tables.rebuild(value["table"], value["column"])
        shown = {"column": value["column"], "success": True, "table": value["table"]}
        return 200, {"entry_count": entries, "estimated_size_bytes": 100 * entries} | shown

    def _reindex(self, value: dict[str, Any]) -> Answer:
        table, rebuilt = value["table"], []
        for column in self.tables.columns(table):
            entries = self.tables.rebuild(table, column)
            kinds = [index.kind for index in self.tables.indexes[table, column]]
            rebuilt += [{"column": column, "entry_count": entries, "type": kind} for kind in kinds]
        return 200, {"indexes": rebuilt, "indexes_rebuilt": len(rebuilt), "success": True, "table": table}


def _loads(body: bytes, word: str) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(body)
    except ValueError:
        raise QueryRefused(f"{word} JSON: {_PARSE_ERROR.format(len(body) + 1)}") from None
    return value


def _segment(key: str) -> bool:
    bad = ("..", "/", "\\", "%2e", "%2E")
    return 0 < len(key.encode()) <= 1024 and not any(one in key for one in bad)


def _error(status: int, message: str) -> Answer:
    return status, {"error": True, "message": message, "status_code": status}


def _not_text(value: object) -> Answer | None:
    if isinstance(value, str):
        return None
    kind = "null" if value is None else _KINDS[type(value)]
    return _error(400, "Invalid JSON: " + _TYPE_ERROR.format("string", kind))


@asynccontextmanager
async def themis_server(*, fixed: bool = False, per_minute: int | None = None) -> AsyncIterator[ThemisServer]:
    """Serve on a free port. `fixed`: without the known bugs of queries."""
    server = ThemisServer(ThemisTables(fixed=fixed))
    server.limit(per_minute)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        listening.close()
        for task in list(server.connections):
            task.cancel()
        await asyncio.gather(*server.connections, return_exceptions=True)
        await listening.wait_closed()
