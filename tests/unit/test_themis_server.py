"""The fake ThemisDB answers as the real server: recorded exchanges are replayed, a few are written here."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tests.themis_server import ADMIN, ThemisServer, themis_server

SHARED = Path(__file__).parent.parent.parent.parent / "shared" / "themis"
REPLAYED = re.compile(r"(0[1-9]|1[0-7]|2\d|3[0-4]|4\d|50|5[56]|9[0123578]|A4[0-2])_")
CATEGORIES = ("Rechtssprechung", "Immissionsschutz", "Datenschutz", "Baurecht")
LOSSY = (
    '{"doc_id": "f", "pi": 3.14159265358979, "big": 1234567.891, "u64": 12345678901234567890, "neg": -5, '
    '"ints": [1, 2, 3], "floats": [0.123456789, 2.5], "strs": ["a", "b"], "obj": {"a": 1}, "nul": null, '
    '"t": true, "empty_arr": [], "empty_str": "", "mixed": [1, "a"], "esc": "a\\u0001\\u2028\\"\\\\"}'
)


@dataclass
class Exchange:
    """A request and its answer; `status` None: the connection was closed without one."""

    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: str
    status: int | None
    answer: Any = None


def built_in() -> list[Exchange]:
    """The exchanges that are tested without the recordings: each bug in one request."""
    page = {"table": "documents", "order_by": {"column": "doc_id", "limit": 3}}
    no_match = {"predicates": [{"column": "category", "value": "none"}]}
    wanted: list[tuple[str, str, Any, int | None, Any]] = [
        ("04 GET", "/entities/documents:nope", None, 404, _error(404, "Entity not found")),
        ("12 POST", "/api/export/jsonl_llm/stream", {}, 404, _error(404, "Endpoint not found")),
        ("24 POST", "/query", {"table": "x", "allow_full_scan": True}, 200, _rows("x", 0)),
        ("25 POST", "/query", page | {"optimize": False}, 400, None),
        ("30 POST", "/index/create", {"table": "documents", "column": "doc_id", "type": "range"}, 200, None),
        ("31 POST", "/query", page | {"optimize": False}, 200, _rows("documents", 0)),
        ("32 POST", "/index/rebuild", {"table": "documents", "column": "doc_id"}, 200, None),
        ("41 POST", "/query", page, 400, _error(400, "executeAndKeysSequential: keine Prädikate")),
        ("45 POST", "/query", page | no_match | {"optimize": False}, 400, None),
        ("47 POST", "/index/create", {"table": "documents", "column": "category"}, 200, None),
        ("49 POST", "/query", page | no_match | {"optimize": False}, 200, _rows("documents", 3)),
        ("93 GET", "/entities/documents:a/b", None, 400, _error(400, "invalid entity key")),
        ("95 POST", "/query", {"table": "colon", "allow_full_scan": True}, 200, _rows("colon", 0)),
        (
            "A40 POST",
            "/query",
            page | {"order_by": {"column": "doc_id", "limit": -1}, "optimize": False},
            None,
            None,
        ),
    ]
    token = {"Authorization": f"Bearer {ADMIN}"}
    return [
        Exchange(name, name.split()[1], path, token, "" if body is None else json.dumps(body), status, answer)
        for name, path, body, status, answer in wanted
    ]


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": True, "message": message, "status_code": status}


def _rows(table: str, count: int) -> dict[str, Any]:
    return {"count": count, "decrypted": False, "entities": [""] * count, "table": table}


def recorded(path: Path) -> Exchange:
    """The exchange in a file: `>>>` request, `<<<` response head, then the body."""
    text = path.read_text(encoding="utf-8")
    request, _, response = text.partition("\n<<<")
    head, _, body = request.partition("\n>>>\n")
    lines = [line.removeprefix(">>> ") for line in head.splitlines() if line.startswith(">>> ")]
    method, target, _ = lines[0].split(" ")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    found = re.match(r" HTTP/1.1 (\d+)", response)
    if found is None:
        return Exchange(path.name, method, target, headers, body, None)
    answer = response.rpartition("\n<<<\n")[2].partition("\n# cut")[0]
    return Exchange(path.name, method, target, headers, body, int(found[1]), json.loads(answer))


def all_recorded() -> list[Exchange]:
    """The recordings; none where the folder is missing. The built-in exchanges always run."""
    paths = sorted(SHARED.iterdir()) if SHARED.exists() else []
    return [recorded(path) for path in paths if REPLAYED.match(path.name)]


def document(number: int) -> dict[str, Any]:
    category = CATEGORIES[number % 4]
    return {"doc_id": f"doc-{number:06d}", "content": f"Inhalt {number}", "category": category, "tags": ["x"]}


# What changed in the real server between two recordings.
BETWEEN: dict[str, Callable[[ThemisServer], None]] = {
    "20": lambda server: server.fill("documents", "doc_id", [*map(document, range(2000))], indexed=False),
    "34": lambda server: server.fill("documents", "doc_id", [document(2000)], indexed=False),
    "40": lambda server: server.fill(
        "documents", "doc_id", [*map(document, range(2000, 5000))], indexed=False
    ),
    "48": lambda server: server.index("documents", "category"),
    "56": lambda server: server.tables.put("ft:f", LOSSY),
    "95": lambda server: server.tables.put("colon:a:b", '{"doc_id":"a:b"}'),
    "98": lambda server: server.limit(100, left=0),
    "A4": lambda server: server.limit(None),
}


def shape(value: Any) -> Any:
    """Keys and types; of a list those of the first item."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in sorted(value.items())}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


async def ask(session: aiohttp.ClientSession, url: str, exchange: Exchange) -> tuple[int | None, Any]:
    headers = {name: value for name, value in exchange.headers.items() if name != "Host"}
    body = exchange.body
    if "[request body of" in body:
        size = int(body.partition("[request body of ")[2].split()[0])
        body = json.dumps({"blob": json.dumps({"doc_id": "doc-000000", "content": "x" * (size - 80)})})
    try:
        request = session.request(
            exchange.method,
            URL(url + exchange.path, encoded=True),
            data=BytesIO(body.encode()),
            headers=headers,
        )
        async with request as response:
            return response.status, json.loads(await response.read())
    except aiohttp.ClientError:
        return None, None


async def test_built_in_exchanges_match() -> None:
    async with themis_server() as server:
        BETWEEN["20"](server)
        BETWEEN["95"](server)
        await replay(server, built_in())


async def test_recorded_exchanges_match() -> None:
    async with themis_server() as server:
        await replay(server, all_recorded(), BETWEEN)


async def replay(
    server: ThemisServer,
    exchanges: list[Exchange],
    between: Mapping[str, Callable[[ThemisServer], None]] | None = None,
) -> None:
    async with aiohttp.ClientSession() as session:
        for exchange in exchanges:
            if between and (change := between.get(exchange.name[:2])):
                change(server)
            status, answer = await ask(session, server.url, exchange)
            assert status == exchange.status, (exchange.name, answer)
            if exchange.answer is not None:
                compare(exchange, answer)
            if status is None:
                server.restart()


def compare(exchange: Exchange, answer: Any) -> None:
    if exchange.name.startswith("98"):
        # The seconds to wait depend on the time of the request.
        answer |= {name: exchange.answer[name] for name in ("message", "retry_after_seconds")}
    if exchange.status is not None and exchange.status >= 400:
        assert answer == exchange.answer, exchange.name
    assert shape(answer) == shape(exchange.answer), exchange.name
    if "count" in exchange.answer:
        assert answer["count"] == exchange.answer["count"], exchange.name
    if exchange.name.startswith(("56", "44", "21")):
        name = "entities" if "entities" in answer else "keys"
        assert answer[name][:2] == exchange.answer[name][:2], exchange.name


async def test_killed_server_answers_only_after_a_restart() -> None:
    async with themis_server() as server, aiohttp.ClientSession() as session:
        kill = built_in()[-1]
        server.fill("documents", "doc_id", [document(0)])
        assert await ask(session, server.url, kill) == (None, None)
        health = Exchange("", "GET", "/health", {}, "", 200)
        assert await ask(session, server.url, health) == (None, None)
        server.restart()
        assert (await ask(session, server.url, health))[0] == 200


async def test_fixed_server_applies_a_filter_without_matches() -> None:
    async with themis_server(fixed=True) as server, aiohttp.ClientSession() as session:
        server.fill("documents", "doc_id", [document(0)])
        server.index("documents", "category")
        dropped = next(one for one in built_in() if one.name.startswith("49"))
        assert await ask(session, server.url, dropped) == (200, _rows("documents", 0))
