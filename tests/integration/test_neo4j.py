"""The graph search against a Neo4j server, compared with a search by the test's own statements."""

import asyncio
import struct
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import neo4j
import pytest
from pydantic import SecretStr

from deploy.dev.service import free_ports
from shardline.services.sample import sample_document
from shardline.services.wiring.uds3 import body_stores
from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.job.findings import Certainty, Level
from shardline_common.job.spec import Query
from shardline_common.runtime.retry import Backoff
from shardline_common.settings.load import Settings
from shardline_producer.plan import make_plan
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.uds3.neo4j.body_store import Neo4jBodyStore
from shardline_producer.sources.uds3.neo4j.cypher import CypherStatement
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from shardline_producer.sources.uds3.neo4j.ranker import Neo4jRanker
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.store_ports import (
    DELETED_BODY,
    BodyRequest,
    DocumentBody,
    Hit,
    InvalidBody,
)
from tests.source_items import documents_of
from tests.stores import connections_to, cypher_async
from tests.uds3_data import DictBodyStore
from tests.uds3_reading import open_source, plan_and_read, uds3_job

DOCUMENTS = 2500
SECRET = "do-not-show-me"  # noqa: S105 - of this test
FULL_TEXT = "CREATE FULLTEXT INDEX texts FOR (n:Document) ON EACH [n.content]"


async def fill(options: Neo4jOptions, *nodes: Mapping[str, Any]) -> None:
    """Add documents with these properties."""
    await cypher_async(options, "UNWIND $nodes AS node CREATE (n:Document) SET n = node", nodes=list(nodes))


async def link(options: Neo4jOptions, *edges: tuple[str, str, str]) -> None:
    """Add edges (from, type, to) between documents."""
    for start, kind, end in edges:
        statement = f"MATCH (a:Document {{id: $a}}), (b:Document {{id: $b}}) CREATE (a)-[:{kind}]->(b)"
        await cypher_async(options, statement, a=start, b=end)


async def index(options: Neo4jOptions, statement: str = FULL_TEXT) -> None:
    """Create a full-text index, and wait until it is online."""
    await cypher_async(options, statement)
    await cypher_async(options, "CALL db.awaitIndexes(60)")


async def ranked(options: Neo4jOptions, text: str, hops: int = 0, **query: Any) -> list[Hit]:
    async with aclosing(Neo4jRanker(options, hops).rank(Query(text=text, **query))) as pages:
        return [hit async for page in pages for hit in page]


async def ids(options: Neo4jOptions, text: str = "recht", hops: int = 0, **query: Any) -> list[str]:
    return [hit.id for hit in await ranked(options, text, hops, **query)]


def sample_nodes() -> list[dict[str, Any]]:
    """Documents of the sample: some have only a name, some have `id` instead of `document_id`."""
    nodes = []
    for number in range(DOCUMENTS):
        document = sample_document(number)
        node = {"content": document["content"], "pages": document["pages"]}
        if number % 10 == 0:
            node = {"name": str(document.get("title", "")), "pages": document["pages"]}
        node["id" if number % 3 == 0 else "document_id"] = document["document_id"]
        nodes.append(node)
    return nodes


async def test_without_an_index_all_documents_that_contain_the_text_by_id(emptied: Neo4jOptions) -> None:
    nodes = sample_nodes()
    await fill(emptied, *nodes)
    expected = sorted(
        str(node.get("document_id", node.get("id")))
        for node in nodes
        if "dachfläche" in str(node.get("content", "")).lower() + "\n" + str(node.get("name", "")).lower()
    )
    assert 100 < len(expected) < DOCUMENTS
    assert await ranked(emptied, "DACHFLÄCHE") == [Hit(one, 1.0) for one in expected]
    assert await ids(emptied, "no such words anywhere") == []
    assert len(await ids(emptied, "e")) > 2000


async def test_with_an_index_hits_are_ordered_by_score_then_id(emptied: Neo4jOptions) -> None:
    nodes = sample_nodes()
    await fill(emptied, *nodes)
    await index(emptied)
    words = "Dachfläche Bebauungsplan"
    rows = await cypher_async(
        emptied,
        "CALL db.index.fulltext.queryNodes('texts', $words) YIELD node, score "
        "RETURN coalesce(node.document_id, node.id) AS id, score",
        words=words,
    )
    expected = sorted((Hit(row["id"], row["score"]) for row in rows), key=lambda hit: (-hit.score, hit.id))
    assert len({hit.score for hit in expected}) > 10
    assert await ranked(emptied, words) == expected
    assert "texts" in await Neo4jRanker(emptied).check()


async def test_operators_in_a_query_are_escaped(emptied: Neo4jOptions) -> None:
    await fill(emptied, {"id": "a", "content": "bau AND recht"}, {"id": "b", "content": "bau plan"})
    await index(emptied)
    assert sorted(await ids(emptied, 'bau AND -recht +(plan "')) == ["a", "b"]
    assert sorted(await ids(emptied, "bau NOT plan")) == ["a", "b"]
    assert await ids(emptied, "-- ** !!") == []


async def test_an_index_over_content_precedes_one_over_names(emptied: Neo4jOptions) -> None:
    await fill(emptied, {"id": "a", "content": "recht"}, {"id": "b", "name": "recht"})
    await index(emptied, "CREATE FULLTEXT INDEX a_names FOR (n:Document) ON EACH [n.name]")
    assert await ids(emptied) == ["b"]
    await index(emptied, "CREATE FULLTEXT INDEX b_texts FOR (n:Document|Other) ON EACH [n.content, n.x]")
    await index(emptied, "CREATE FULLTEXT INDEX a_titles FOR (n:Document) ON EACH [n.title]")
    await cypher_async(emptied, "CREATE (:Other {id: 'c', content: 'recht'})")
    await cypher_async(emptied, "CALL db.index.fulltext.awaitEventuallyConsistentIndexRefresh()")
    assert await ids(emptied) == ["a"]


async def test_ids_are_unique_and_in_byte_order(emptied: Neo4jOptions) -> None:
    names = ["b", "a", "ä", "Z", "\uff5e", "\U0001f600", "10", "9"]
    await fill(emptied, *({"id": one, "content": "recht"} for one in names))
    await fill(emptied, {"document_id": "a", "id": "other", "content": "Recht"}, {"content": "recht"})
    await fill(emptied, {"id": 7, "content": "recht"})
    assert await ids(emptied) == sorted([*names, "7"], key=str.encode)


async def test_filters_select_hits_by_properties(emptied: Neo4jOptions) -> None:
    text = {"content": "recht"}
    await fill(
        emptied,
        {"id": "a", "year": 2020, "open": True, "day": "2020-05-01", "kind": "law"} | text,
        {"id": "b", "year": 2020.0, "open": False, "day": "2021-05-01", "kind": "law"} | text,
        {"id": "c", "year": 2021.5, "day": "2019-01-01", "kind": "note"} | text,
        {"id": "d", "year": 1, "kind": "1"} | text,
    )
    await cypher_async(emptied, "CREATE (:Document {id: 'e', content: 'recht', day: date('2022-02-02')})")
    await cypher_async(
        emptied,
        "CREATE (:Document {id: 'f', content: 'recht', day: datetime('2018-02-02T10:00:00Z'), year: '2020'})",
    )
    fields = ["content", "day", "id", "kind", "open", "year"]
    assert list(await Neo4jRanker(emptied).filter_fields()) == fields

    async def found(**filters: Any) -> str:
        return "".join(await ids(emptied, filters=filters))

    assert await found(year=2020) == "ab"
    assert await found(year=[1, 2021.5]) == "cd"
    assert await found(year={"gte": 2020, "lte": 2021}) == "ab"
    assert await found(kind=["law", "note"], year={"gte": 2020.5}) == "c"
    assert await found(open=True) == "a"
    assert await found(open=[True, False]) == "ab"
    assert await found(kind="1") == "d"
    assert await found(kind=1) == ""
    assert await found(day={"gte": "2020-01-01"}) == "abe"
    assert await found(day={"lte": "2019-01-01"}) == "cf"
    assert await found(day={"lte": "2018-02-02"}) == "f"
    # A bound with a time is a moment, whatever the form of either.
    assert await found(day={"lte": "2018-02-02T11:00:00+01:00"}) == "f"
    assert await found(day={"lte": "2018-02-02T10:59:59.999999+01:00"}) == ""
    assert await found(day={"gte": "2021-05-01T00:00", "lte": "2022-02-01 23:00:00-01:00"}) == "be"
    assert await found(day="2022-02-02") == "e"
    assert await found(open=None) == "cdef"
    assert await found(open=[None, True]) == "acdef"
    assert await found(kind=[]) == ""
    assert await found(open={"gte": False}) == ""


TOMBSTONES: list[dict[str, Any]] = [
    {"deleted": True},
    {"deleted": "true"},
    {"is_deleted": 1},
    {"deleted_at": "2024-01-01"},
    {"processing_status": "failed"},
    {"processing_status": "archived"},
    {"processing_status": "deleted"},
    {"deleted": False, "is_deleted": "false", "deleted_at": "False", "processing_status": "completed"},
    {},
]


@pytest.mark.parametrize("indexed", [False, True])
async def test_deleted_documents_are_not_hits(emptied: Neo4jOptions, indexed: bool) -> None:
    await fill(
        emptied, *({"id": str(place), "content": "recht"} | one for place, one in enumerate(TOMBSTONES))
    )
    await cypher_async(emptied, "CREATE (:Document {id: 'x', content: 'recht', deleted_at: datetime()})")
    if indexed:
        await index(emptied)
    assert await ids(emptied) == ["7", "8"]
    assert await ids(replace(emptied, include_archived=True)) == ["5", "7", "8"]


async def test_archived_documents_are_not_hits(emptied: Neo4jOptions) -> None:
    text = {"content": "recht"}
    await fill(
        emptied,
        {"id": "a", "archived": True} | text,
        {"id": "b", "archived_at": "2025-01-01"} | text,
        {"id": "restored", "archived": False, "archived_at": "2025-01-01"} | text,
        {"id": "x", "deleted": True, "archived": False} | text,
    )
    assert await ids(emptied) == ["restored"]
    assert sorted(await deleted_ids(emptied)) == ["a", "b", "x"]
    included = replace(emptied, include_archived=True)
    assert await ids(included) == ["a", "b", "restored"]
    assert await deleted_ids(included) == ["x"]


async def deleted_ids(options: Neo4jOptions) -> list[str]:
    async with aclosing(Neo4jRanker(options).deleted_ids()) as pages:
        return [one async for page in pages for one in page]


async def test_all_deleted_documents_are_reported(emptied: Neo4jOptions) -> None:
    assert await deleted_ids(emptied) == []
    await fill(emptied, *({"id": str(place)} | one for place, one in enumerate(TOMBSTONES)))
    # The id is that of a hit. One marked node of two is enough. A node without an id is not a document.
    await fill(emptied, {"document_id": "a", "id": "other", "deleted": True}, {"id": "b"}, {"deleted": True})
    await fill(emptied, {"id": "b", "is_deleted": "YES"}, {"id": 7, "processing_status": "Failed"})
    await cypher_async(emptied, "CREATE (:Document {id: 'x', deleted_at: datetime()}), (:Other {id: 'y'})")
    await cypher_async(emptied, "MATCH (n:Other) SET n.deleted = true")
    assert sorted(await deleted_ids(emptied)) == [*"01234567", "a", "b", "x"]
    assert sorted(await deleted_ids(replace(emptied, include_archived=True))) == [*"0123467", "a", "b", "x"]
    many = [f"m{number:04d}" for number in range(2500)]
    await fill(emptied, *({"id": one, "deleted": True} for one in many))
    assert sorted(await deleted_ids(emptied))[-2501:] == [*many, "x"]


async def test_neighbours_follow_hits_by_distance_then_id(emptied: Neo4jOptions) -> None:
    other = {"content": "x"}
    await fill(emptied, {"id": "hit1", "content": "recht"}, {"id": "hit2", "content": "recht", "kind": "k"})
    await fill(
        emptied,
        *({"id": one, "kind": "k"} | other for one in ("z", "m", "a", "far", "island", "wrong")),
        {"id": "gone", "deleted": True} | other,
        {"id": "behind"} | other,
    )
    await cypher_async(emptied, "CREATE (:Other {id: 'no-document'})")
    await link(
        emptied,
        ("hit1", "CITES", "z"),
        ("m", "SUPERSEDES", "hit2"),
        ("hit1", "CITES", "hit2"),
        ("z", "RELATED_TO", "a"),
        ("m", "CITES", "a"),
        ("a", "CITES", "far"),
        ("hit1", "MENTIONS", "wrong"),
        ("hit1", "CITES", "gone"),
        ("gone", "CITES", "behind"),
    )
    await cypher_async(emptied, "MATCH (a {id: 'hit1'}), (b:Other) CREATE (a)-[:CITES]->(b)")
    assert await ids(emptied) == ["hit1", "hit2"]
    assert await ids(emptied, hops=1) == ["hit1", "hit2", "m", "z"]
    assert await ids(emptied, hops=2) == ["hit1", "hit2", "m", "z", "a"]
    hits = await ranked(emptied, "recht", hops=3)
    assert [hit.id for hit in hits] == ["hit1", "hit2", "m", "z", "a", "far"]
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id.encode()))
    # Filters select hits, but the search also passes through other documents.
    assert await ids(emptied, hops=3, filters={"kind": "k"}) == ["hit2", "m", "a", "z", "far"]


@pytest.mark.parametrize("indexed", [False, True])
async def test_hits_that_are_left_out_are_reported(emptied: Neo4jOptions, indexed: bool) -> None:
    text = {"content": "recht"}
    await fill(
        emptied,
        {"id": "a", "kind": "k"} | text,
        {"id": "b", "deleted": True, "kind": "k"} | text,
        {"id": "c", "deleted_at": "2024"} | text,
        {"id": "d", "deleted": True, "content": "other"},
        {"document_id": "", "id": ""} | text,
        {"title": "no id"} | text,
    )
    if indexed:
        await index(emptied)
    ranker = Neo4jRanker(emptied)

    async def left_out(**query: Any) -> list[str]:
        async with aclosing(ranker.marked_hits(Query(text="recht", **query))) as pages:
            return sorted([one async for page in pages for one in page])

    assert await left_out(filters={"kind": "k"}) == ["b"]
    assert ranker.certainty().level == "proven"
    assert await left_out() == ["b", "c"]
    assert ranker.certainty() == Certainty(
        Level.COUNTED, "2 nodes that match have neither a document_id nor an id"
    )
    bodies_of = Neo4jBodyStore(emptied)
    found = ConfiguredStores(rankers={"graph": ranker}, body_stores=[bodies_of])
    spec = uds3_job(query={"text": "recht", "search_types": ["graph"]})
    source = open_source(found, spec)
    plan = await make_plan(spec, source)
    items = [item async for batch in source.read(plan.frozen, None) for item in batch]
    assert [one.id for one in documents_of(items)] == ["a"]
    assert source.findings(plan.frozen).to_json() == {
        "completeness": {
            "neo4j": {"level": "counted", "how": "2 nodes that match have neither a document_id nor an id"}
        },
        "deleted": {"neo4j": 2},
    }


async def test_an_index_that_is_filled_later_is_awaited(
    emptied: Neo4jOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await index(emptied, FULL_TEXT + " OPTIONS {indexConfig: {`fulltext.eventually_consistent`: true}}")
    for number in range(5):
        await fill(emptied, *({"id": f"{number}-{n}", "content": f"recht {n}"} for n in range(300)))
        assert len(await ids(emptied)) == 300 * (number + 1)
    refused = CypherStatement("CALL no.such.procedure()", {})
    monkeypatch.setattr("shardline_producer.sources.uds3.neo4j.ranker._REFRESH", refused)
    ranker = Neo4jRanker(emptied)
    async with aclosing(ranker.rank(Query(text="recht"))) as pages:
        assert [page async for page in pages]
    assert ranker.certainty().level == Level.UNPROVEN


async def test_a_graph_that_was_emptied_or_made_anew_has_changed(emptied: Neo4jOptions) -> None:
    await fill(emptied, {"id": "a", "content": "recht"})
    ranker = Neo4jRanker(emptied)
    planned = await ranker.identity()
    assert planned["documents"] == 1
    assert await ranker.changed_since(planned) is None
    assert "made anew" in str(await ranker.changed_since(planned | {"id": "other"}))
    await cypher_async(emptied, "MATCH (n) DETACH DELETE n")
    assert await ranker.changed_since(planned) == "the database has no documents"


@pytest.mark.parametrize(
    "broken", [KeyError("x"), TypeError("x"), ValueError("marker"), struct.error("x"), IndexError()]
)
async def test_a_stream_that_cannot_be_decoded_is_read_again(
    emptied: Neo4jOptions, monkeypatch: pytest.MonkeyPatch, broken: Exception
) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda *_: 0.0)
    await fill(emptied, {"id": "a", "content": "recht"})
    real, left = neo4j.AsyncResult.fetch, 2

    async def fetch(result: neo4j.AsyncResult, count: int) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise broken
        return await real(result, count)

    monkeypatch.setattr(neo4j.AsyncResult, "fetch", fetch)
    assert await deleted_ids(emptied) == []
    left = 99
    with pytest.raises(SourceUnavailable, match="its answer cannot be decoded"):
        await deleted_ids(emptied)


async def bodies(options: Neo4jOptions, *names: str, max_bytes: int = 1000) -> dict[str, Any]:
    return await Neo4jBodyStore(options).bodies([BodyRequest(name) for name in names], max_bytes)


async def test_the_text_of_a_node_is_its_content(emptied: Neo4jOptions) -> None:
    await fill(
        emptied,
        {"document_id": "a", "id": "other", "content": "Text ä", "title": "T", "pages": 3, "tags": ["x"]},
        {"document_id": "", "id": "b", "content": "of b", "rate": 0.5},
        {"id": 7, "content": "of seven"},
        {"id": "empty", "content": ""},
        {"id": "name", "name": "only a name"},
        {"id": "list", "content": ["no", "text"]},
        {"id": "gone", "content": "x", "deleted": True},
        {"id": "two", "content": "zwei", "n": 1},
        {"id": "two", "content": "Eins", "n": 2},
        {"id": "half", "content": "x"},
        {"id": "half", "is_deleted": 1},
        {"id": "long", "content": "ä" * 501},
        {"id": "fits", "content": "ä" * 500},
    )
    await cypher_async(
        emptied,
        "CREATE (:Document {id: 'time', content: 't', at: datetime('2024-02-03T04:05:06Z'), "
        "day: date('2024-02-03'), where: point({x: 1, y: 2}), nan: 0.0 / 0.0})",
    )
    names = ("a", "b", "7", "empty", "name", "list", "gone", "two", "half", "long", "fits", "time", "nowhere")
    found = await bodies(emptied, *names)
    assert found.pop("long").reason == DeadLetterReason.TOO_LARGE
    assert found.pop("fits").text == "ä" * 500
    assert found == {
        "a": DocumentBody("Text ä", {"id": "other", "title": "T", "pages": 3, "tags": ["x"]}),
        "b": DocumentBody("of b", {"document_id": "", "rate": 0.5}),
        "7": DocumentBody("of seven"),
        "empty": DocumentBody(""),
        "list": InvalidBody(DeadLetterReason.CONTENT_NOT_TEXT),
        "gone": DELETED_BODY,
        "two": DocumentBody("Eins", {"n": 2}),
        "half": DELETED_BODY,
        "time": DocumentBody(
            "t",
            {
                "at": "2024-02-03T04:05:06.000000000+00:00",
                "day": "2024-02-03",
                "where": [1.0, 2.0],
                "nan": "NaN",
            },
        ),
    }
    assert "can be read" in await Neo4jBodyStore(emptied).check()


async def test_a_graph_hit_has_the_text_of_its_node(emptied: Neo4jOptions) -> None:
    await fill(emptied, {"id": "a", "content": "recht a"}, {"id": "b", "content": "recht b"})
    others = DictBodyStore({"a": DocumentBody("of another store")})
    settings = Settings(
        neo4j_uri=emptied.uri, neo4j_user=emptied.user, neo4j_password=SecretStr(emptied.password or "")
    )
    graph_bodies = body_stores(settings)
    found = ConfiguredStores(rankers={"graph": Neo4jRanker(emptied)}, body_stores=[others, *graph_bodies])
    _, items = await plan_and_read(found, query={"text": "recht", "search_types": ["graph"]})
    assert {one.id: one.text for one in documents_of(items)} == {"a": "of another store", "b": "recht b"}


async def test_an_empty_database_has_no_hits(emptied: Neo4jOptions) -> None:
    assert await ids(emptied, hops=2) == []
    assert list(await Neo4jRanker(emptied).filter_fields()) == []
    assert "0 documents, searched by CONTAINS" in await Neo4jRanker(emptied).check()


async def test_errors_name_the_setting_and_hide_the_password(emptied: Neo4jOptions) -> None:
    wrong = replace(emptied, password=SECRET)
    with pytest.raises(JobFailed, match="refuses the credentials") as error:
        await ids(wrong)
    assert "NEO4J_PASSWORD" in (error.value.hint or "")
    assert SECRET not in repr(error.value) + repr(wrong)
    with pytest.raises(JobFailed, match="database nowhere") as error:
        await Neo4jRanker(replace(emptied, database="nowhere")).check()
    assert error.value.hint == "set NEO4J_DATABASE"
    with pytest.raises(JobFailed, match="nothing://localhost") as error:
        await ids(replace(emptied, uri="nothing://localhost"))
    assert error.value.hint == "check NEO4J_URI"


async def test_a_server_that_is_down_is_a_transient_error(emptied: Neo4jOptions) -> None:
    (port,) = free_ports(1)
    unreachable = replace(emptied, uri=f"bolt://127.0.0.1:{port}", attempts=2)
    for call in (ids(unreachable), deleted_ids(unreachable)):
        with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{port} cannot be read"):
            await call


async def test_a_query_over_its_timeout_is_a_transient_error(
    emptied: Neo4jOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "UNWIND range(1, 100000000000) AS number RETURN sum(number % 7) AS documents"
    monkeypatch.setattr("shardline_producer.sources.uds3.neo4j.ranker._COUNT", CypherStatement(endless, {}))
    impatient = Neo4jRanker(replace(emptied, query_timeout=1.0, attempts=1))
    with pytest.raises(SourceUnavailable, match="TimedOut"):
        await impatient.check()


async def test_cancellation_closes_the_connections(emptied: Neo4jOptions) -> None:
    await fill(emptied, *sample_nodes())
    port, started = int(emptied.uri.rpartition(":")[2]), asyncio.Event()

    async def read() -> None:
        async with aclosing(Neo4jRanker(emptied, hops=2).rank(Query(text="e"))) as pages:
            async for _ in pages:
                started.set()

    work = asyncio.create_task(read())
    await started.wait()
    assert connections_to(port) == 1
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    while connections_to(port):
        await asyncio.sleep(0)


async def test_closing_a_ranking_early_closes_the_connections(emptied: Neo4jOptions) -> None:
    await fill(emptied, *sample_nodes())
    port = int(emptied.uri.rpartition(":")[2])
    async with aclosing(Neo4jRanker(emptied).rank(Query(text="e"))) as pages:
        assert len(await anext(pages)) == 1000
        assert connections_to(port) == 1
    while connections_to(port):
        await asyncio.sleep(0)
