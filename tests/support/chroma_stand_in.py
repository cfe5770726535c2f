"""A stand-in of ChromaDB's HTTP API that answers as ChromaDB 1.5.9 does, and can be made to lie.

tests/integration/test_chroma_stand_in.py sends the same requests to both and compares the answers.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from operator import eq, ge, gt, le
from typing import Any
from uuid import uuid4

from aiohttp import web
from aiohttp.test_utils import TestServer

from shardline_producer.sources.uds3.chroma.collection import ChromaOptions
from tests.stores import Address, http_options

_FOLDER = "/api/v2/tenants/default_tenant/databases/default_database/collections"
_SIGNS = {"$eq": eq, "$gte": ge, "$lte": le, "$gt": gt}
_LISTS = ("embeddings", "documents", "metadatas")


@dataclass
class Record:
    """A record of the collection."""

    vector: Sequence[float | None] | None
    metadata: Mapping[str, Any] | None = None
    document: str | None = None


Answer = dict[str, Any]


@dataclass
class ChromaStandIn:
    """One collection. Records keep the order in which they were added.

    `before` is called with each request for records, before it is answered, and may change the records.
    `lie` returns the answer that is sent instead of the true one, `count` the number. With a `token`, other
    requests are refused. `requests` are the bodies of all requests for records.
    """

    space: str = "l2"
    dimension: int | None = 2
    name: str = "document_chunks"
    id: str = field(default_factory=lambda: str(uuid4()))
    records: dict[str, Record] = field(default_factory=dict)
    before: Callable[[Answer], None] = lambda _: None
    lie: Callable[[Answer, Answer], Answer] = lambda _, answer: answer
    count: Callable[[int], int] = lambda count: count
    token: str | None = None
    requests: list[Answer] = field(default_factory=list)
    url: str = ""

    @property
    def options(self) -> ChromaOptions:
        """How the adapter reads it."""
        return ChromaOptions(http_options(Address(self.url)), collection=self.name)

    def add(
        self,
        record: str,
        vector: Sequence[float | None] | None = (1.0, 0.0),
        document: str | None = None,
        **metadata: Any,
    ) -> None:
        """Add a record, behind all others; one that exists is removed first."""
        self.records.pop(record, None)
        self.records[record] = Record(vector, metadata or None, document)

    def remove(self, *records: str) -> None:
        """Remove records."""
        for record in records:
            del self.records[record]

    def make_anew(self) -> None:
        """Delete the collection, and create an empty one of its name."""
        self.id, self.records = str(uuid4()), {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ChromaOptions]:
        """Serve the collection."""
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get(f"{_FOLDER}/{{name}}", self._collection)
        app.router.add_get(f"{_FOLDER}/{{id}}/count", self._count)
        app.router.add_post(f"{_FOLDER}/{{id}}/get", self._get)
        async with TestServer(app) as server:
            self.url = str(server.make_url("")).rstrip("/")
            yield self.options

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.token is not None and request.headers.get("X-Chroma-Token") != self.token:
            raise web.HTTPForbidden
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _collection(self, request: web.Request) -> web.Response:
        if request.match_info["name"] != self.name:
            return _missing(request.match_info["name"])
        configuration = {"hnsw": {"space": self.space}}
        return web.json_response(
            {
                "id": self.id,
                "name": self.name,
                "configuration_json": configuration,
                "dimension": self.dimension,
            }
        )

    async def _count(self, request: web.Request) -> web.Response:
        if request.match_info["id"] != self.id:
            return _missing(request.match_info["id"])
        return web.json_response(self.count(len(self.records)))

    async def _get(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        self.before(body)
        if request.match_info["id"] != self.id:
            return _missing(request.match_info["id"])
        return web.json_response(self.lie(body, self._answer(body)))

    def _answer(self, body: Answer) -> Answer:
        wanted, where = body.get("ids"), body.get("where")
        found = [
            (name, record)
            for name, record in self.records.items()
            if (wanted is None or name in wanted) and (where is None or meets(where, record.metadata or {}))
        ]
        start = body.get("offset") or 0
        limit = body.get("limit")
        found = found[start:] if limit is None else found[start : start + limit]
        answer: Answer = {"ids": [name for name, _ in found], "uris": None, "include": body["include"]}
        answer["embeddings"] = [_json(record.vector) for _, record in found]
        answer["documents"] = [record.document for _, record in found]
        answer["metadatas"] = [record.metadata for _, record in found]
        return answer | {name: None for name in _LISTS if name not in body["include"]}


def only(answer: Answer, keep: Callable[[str], bool]) -> Answer:
    """The answer with those of its records whose ids are kept."""
    places = [place for place, record in enumerate(answer["ids"]) if keep(record)]
    return {
        name: [values[place] for place in places] if name in ("ids", *_LISTS) and values else values
        for name, values in answer.items()
    }


def meets(where: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Whether metadata pass a clause."""
    ((name, value),) = where.items()
    if name == "$and":
        return all(meets(one, metadata) for one in value)
    if name == "$or":
        return any(meets(one, metadata) for one in value)
    ((sign, wanted),) = value.items()
    found = metadata.get(name)
    if sign == "$in":
        return any(_compares(eq, found, one) for one in wanted)
    return _compares(_SIGNS[sign], found, wanted)


def _compares(sign: Callable[[Any, Any], Any], found: Any, wanted: Any) -> bool:
    kinds = [(isinstance(one, str), isinstance(one, bool)) for one in (found, wanted)]
    return found is not None and kinds[0] == kinds[1] and bool(sign(found, wanted))


def _json(vector: Sequence[float | None] | None) -> list[float | None] | None:
    return None if vector is None else list(vector)


def _missing(name: str) -> web.Response:
    answer = {"error": "NotFoundError", "message": f"Collection [{name}] does not exist."}
    return web.json_response(answer, status=404)
