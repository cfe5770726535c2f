"""CouchDB and ChromaDB: an odd value in an answer spoils no other document, and ends in no traceback."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any

import orjson
import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.http.client import HttpRequest
from shardline_common.job.columns import infer
from shardline_common.job.spec import Query
from shardline_common.runtime.retry import Backoff
from shardline_producer.rows import RowRenderer
from shardline_producer.sources import http_store
from shardline_producer.sources.http_store import HttpStoreOptions
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.source import Document, InvalidDocument
from shardline_producer.sources.uds3.chroma.body_store import ChromaBodyStore
from shardline_producer.sources.uds3.chroma.collection import ChromaOptions
from shardline_producer.sources.uds3.chroma.ranker import ChromaRanker
from shardline_producer.sources.uds3.contents import ContentFetcher
from shardline_producer.sources.uds3.couch.body_store import CouchBodyStore, CouchOptions
from shardline_producer.sources.uds3.store_ports import BodyRequest, BodyStore
from tests.embedding_stub import FixedEmbedder
from tests.make import job
from tests.support.odd_answers import DEEP, ODD, OddClient, paths

Calls = Mapping[str, Callable[[], Awaitable[Any]]]
# Every value comes at a place in each so many of the calls and places.
_SHARE = 7
COUCH: Mapping[str, dict[str, Any]] = {
    "a": {
        "_id": "a",
        "_rev": "2-x",
        "content": "text of a",
        "metadata": {"title": "A", "tags": ["x"], "document_id": "a"},
        "_attachments": {"t": {"content_type": "text/plain", "length": 3, "digest": "md5-x", "stub": True}},
    },
    "b": {"_id": "b", "_rev": "1-x", "text": "text of b", "number": 1},
    "d": {"_id": "d", "_rev": "1-x", "deleted": True},
    "u": {"_id": "u", "_rev": "1-x", "content": "text of c", "metadata": {"document_id": "c"}},
}
CHROMA: Mapping[str, tuple[str | None, dict[str, Any] | None, list[float]]] = {
    "a::chunk::0": ("text a0", {"document_id": "a", "chunk_index": 0, "title": "A"}, [1.0, 0.5]),
    "a::chunk::1": ("text a1", {"document_id": "a", "chunk_index": 1}, [0.5, 0.5]),
    "b": ("text b", None, [0.1, 0.2]),
    "c": (None, {"deleted": True}, [0.3, 0.2]),
}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda *_: 0.0)
    monkeypatch.setattr(Backoff, "longest", lambda *_: 0.0)


def couch_row(name: str, *, documents: bool) -> dict[str, Any]:
    if name in COUCH:
        row = {"id": name, "key": name, "value": {"rev": COUCH[name]["_rev"]}}
        return row | ({"doc": COUCH[name]} if documents else {})
    if name == "gone":
        return {"id": name, "key": name, "value": {"rev": "3-x", "deleted": True}, "doc": None}
    return {"key": name, "error": "not_found"}


def couch(request: HttpRequest) -> Any:
    """CouchDB's answers."""
    params, end = request.params or {}, request.path.rpartition("/")[2]
    if end == "_all_docs":
        documents = "include_docs" in params
        if request.body is not None:
            return {
                "rows": [couch_row(key, documents=documents) for key in orjson.loads(request.body)["keys"]]
            }
        start = orjson.loads(params.get("startkey", '""'))
        names = [name for name in COUCH if isinstance(start, str) and name >= start]
        return {
            "total_rows": 4,
            "offset": 0,
            "rows": [couch_row(name, documents=documents) for name in names],
        }
    if end == "_changes":
        changes = [{"id": name, "seq": 1, "changes": [{"rev": one["_rev"]}]} for name, one in COUCH.items()]
        gone = {"id": "gone", "seq": 5, "changes": [{"rev": "3-x"}], "deleted": True}
        return {"results": [*changes, gone] if params.get("since") == "0" else [], "last_seq": 5}
    if end == "_find":
        is_first = "bookmark" not in orjson.loads(request.body or b"")
        found = {"_id": "u", "metadata": {"document_id": "c"}}
        return {"docs": [found] if is_first else [], "bookmark": "end"}
    described = {
        "_index": {"indexes": [{"type": "json", "def": {"fields": [{"metadata.document_id": "asc"}]}}]},
        "db": {"db_name": "db", "doc_count": 4, "update_seq": "5-x", "instance_start_time": "17"},
    }
    return described.get(end, {"couchdb": "Welcome", "version": "3.3"})


def chroma(request: HttpRequest) -> Any:
    """ChromaDB's answers."""
    if request.path.endswith("/count"):
        return len(CHROMA)
    if not request.path.endswith("/get"):
        space = {"hnsw": {"space": "l2"}}
        return {"id": "17", "dimension": 2, "configuration_json": space, "schema": {"keys": {"title": {}}}}
    body = orjson.loads(request.body or b"")
    ids = [name for name in CHROMA if "ids" not in body or name in body["ids"]]
    if "where" in body:
        where = orjson.dumps(body["where"])
        ids = [
            name for name in ids if b'"document_id"' in where and b'"a"' in where and name > "a:" > name[:1]
        ]
    ids = ids[body.get("offset", 0) :][: body.get("limit")]
    lists = {"documents": 0, "metadatas": 1, "embeddings": 2}
    return {"ids": ids} | {
        name: [CHROMA[one][place] for one in ids] if name in body["include"] else None
        for name, place in lists.items()
    }


async def rows_of(store: BodyStore, ids: Sequence[str]) -> dict[str, bytes | str]:
    """By id the rendered row of a document, or the reason why there is none."""
    entries, found = [Entry(one, foreign=True) for one in ids], dict[str, bytes | str]()
    for content in await ContentFetcher(None, None, [store], 10_000).fetch(entries):
        if isinstance(content, Document):
            row = RowRenderer(job(), infer([content])).render(content)
            found[content.id] = row.head + row.tail
        else:
            found[content.key] = content.dead_letter.reason
    return found


async def listed(pages: Any) -> list[Any]:
    return [one async for page in pages for one in page]


def couch_calls() -> Calls:
    options = CouchOptions(HttpStoreOptions("CouchDB", "http://couch", attempts=2), "db")
    ids = ("a", "b", "c", "d", "gone", "none")

    async def marks() -> Any:
        store = CouchBodyStore(options)
        return await listed(store.deleted_ids()), store.certainty()

    return {
        "rows": lambda: rows_of(CouchBodyStore(options), ids),
        "marks": marks,
        "deleted": lambda: CouchBodyStore(options).deleted([BodyRequest(one) for one in ids]),
        "check": lambda: CouchBodyStore(options).check(),
        "changed": lambda: CouchBodyStore(options).changed_since({"made": "17", "changes": 3}),
    }


def chroma_calls() -> Calls:
    options = ChromaOptions(HttpStoreOptions("ChromaDB", "http://chroma", attempts=2))
    query, filtered = Query(text="x"), Query(text="x", filters={"title": "A"})

    def ranker() -> ChromaRanker:
        return ChromaRanker(options, FixedEmbedder(1.0, 0.0))

    async def ignore(_: Sequence[str]) -> None:
        return None

    return {
        "rows": lambda: rows_of(ChromaBodyStore(options), ("a", "b", "c", "none")),
        "rank": lambda: listed(ranker().rank(query, ignore)),
        "filtered": lambda: listed(ranker().rank(filtered)),
        "deleted": lambda: listed(ranker().deleted_ids()),
        "fields": lambda: ranker().filter_fields(),
        "identity": lambda: ranker().identity(),
    }


async def result_of(call: Callable[[], Awaitable[Any]]) -> Any:
    """The result of a call; its message if it refuses the answer."""
    try:
        return await call()
    except (SourceUnavailable, JobFailed) as error:
        return f"refused: {error}"


def question(request: HttpRequest) -> tuple[Any, ...]:
    return request.method, request.path, tuple((request.params or {}).items()), request.body


async def questions(client: OddClient, call: Callable[[], Awaitable[Any]]) -> tuple[Any, dict[Any, Any]]:
    """The true result of a call, and the answers to its questions."""
    asked: dict[Any, Any] = {}

    def note(request: HttpRequest) -> bool:
        asked[question(request)] = client.answers(request)
        return False

    client.at, client.requests = note, 0
    return await call(), asked


STORES = {"CouchDB": (couch, couch_calls), "ChromaDB": (chroma, chroma_calls)}


@pytest.mark.parametrize("name", STORES)
async def test_no_odd_value_ends_in_an_internal_error_or_spoils_another_document(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, calls = STORES[name]
    client, turn, results = OddClient(answers), count(), {"same": 0, "other": 0, "refused": 0}
    monkeypatch.setattr(http_store, "open_http", client.opened)
    for what, call in calls().items():
        true, asked = await questions(client, call)
        places = [(key, path) for key, answer in asked.items() for path in paths(answer)]
        for (key, path), (odd, value) in ((place, one) for place in places for one in ODD.items()):
            if next(turn) % _SHARE:
                continue
            client.at = lambda request, key=key: question(request) == key  # type: ignore[misc]
            client.odd, client.requests = (path, value), 0
            case = (what, key, path, odd)
            found = await result_of(call)
            if isinstance(found, str) and found.startswith("refused"):
                assert name in found, case
                results["refused"] += 1
            else:
                results["same" if found == true else "other"] += 1
                if what == "rows" and len(path) > 1:
                    others = [one for one in true if found[one] != true[one]]
                    assert len(others) <= 1, (case, others)
    assert min(results.values()) > 10, results


def with_field(**fields: Any) -> dict[str, Any]:
    return {"_id": "a", "_rev": "1-x", "content": "text", "beside": 1} | fields


ODD_FIELDS = {
    '"content": "cut \\ud83d"': "lone_surrogate",
    '"content": ["text"]': "content_not_text",
    '"field": "cut \\ud83d"': '{"field":"cut \\ud83d"}',
    '"field": 1e400': '{"field":"1e400"}',
    '"field": 123456789012345678901234567890': '{"field":123456789012345678901234567890}',
    '"field": {"inner": [1, -1e400]}': '{"field":{"inner":[1,"-1e400"]}}',
    f'"field": {DEEP}': f'{{"field":["{DEEP[1:-1]}"]}}',
    '"metadata": ["no", "object"]': '{"metadata":["no","object"]}',
    '"metadata": {"document_id": "a", "big": 18446744073709551616}': '{"big":18446744073709551616}',
}


@pytest.mark.parametrize(("field", "expected"), ODD_FIELDS.items(), ids=[one[:30] for one in ODD_FIELDS])
async def test_an_odd_field_goes_into_extra_or_makes_a_dead_letter_of_its_document(
    field: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = orjson.dumps(with_field()).decode()[:-1] + f", {field}}}"
    client = OddClient(couch)
    client.at = lambda request: request.path.endswith("_all_docs")
    client.odd = (("rows", 0, "doc"), odd.encode())
    monkeypatch.setattr(http_store, "open_http", client.opened)
    options = CouchOptions(HttpStoreOptions("CouchDB", "http://couch", attempts=2), "db")
    entries = [Entry(one, foreign=True) for one in "ab"]
    first, second = await ContentFetcher(None, None, [CouchBodyStore(options)], 10_000).fetch(entries)
    assert isinstance(second, Document)
    assert (second.text, second.metadata) == ("text of b", {"number": 1})
    if isinstance(first, InvalidDocument):
        assert first.dead_letter.reason == expected
    else:
        row = RowRenderer(job(), infer([Document("x", "", {"beside": 1})])).render(first)
        metadata = orjson.loads(row.head + b"0" + row.tail)["metadata"]
        assert metadata == {"beside": 1, "extra": expected}


async def test_bytes_that_are_no_utf8_are_asked_for_again_and_then_refused_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, broken = OddClient(couch), 1
    client.odd = (("rows", 0, "doc", "content"), b'"t\xe4xt"')

    def is_broken(request: HttpRequest) -> bool:
        nonlocal broken
        broken -= request.path.endswith("_all_docs")
        return broken >= 0 and request.path.endswith("_all_docs")

    client.at = is_broken
    monkeypatch.setattr(http_store, "open_http", client.opened)
    options = CouchOptions(HttpStoreOptions("CouchDB", "http://couch", attempts=3), "db")
    ids = ("a", "b")
    whole = await rows_of(CouchBodyStore(options), ids)
    assert isinstance(whole["a"], bytes)
    broken = 1000
    assert await rows_of(CouchBodyStore(options), ids) == whole | {"a": "lone_surrogate"}
