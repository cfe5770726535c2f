"""The wiring of settings to the stores of UDS3: rankers and body stores, and which are configured."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shardline.services.wiring.uds3_options import (
    chroma_options,
    couch_options,
    embedding_options,
    neo4j_options,
    postgres_options,
)
from shardline_common.errors import SourceUnavailable
from shardline_common.job.spec import SearchType
from shardline_common.settings.load import Settings
from shardline_producer.sources.uds3.chroma.body_store import ChromaBodyStore
from shardline_producer.sources.uds3.chroma.ranker import ChromaRanker
from shardline_producer.sources.uds3.couch.body_store import CouchBodyStore
from shardline_producer.sources.uds3.embedding.embedder import Embedder
from shardline_producer.sources.uds3.embedding.factory import make_embedder
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.postgres.connection import Postgres
from shardline_producer.sources.uds3.store_ports import BodyStore, Ranker


@dataclass(frozen=True, slots=True)
class StoreProbe:
    """A store for `doctor`. `check` is None when it is not configured; `missing` names the setting then."""

    name: str
    missing: str
    check: Callable[[], Awaitable[str]] | None


def uds3_stores(settings: Settings, hops: int = 0) -> ConfiguredStores:
    """Return the configured stores; a graph search follows `hops` edges."""
    embed, postgres = make_embedder(embedding_options(settings)), postgres_options(settings)
    return ConfiguredStores(
        postgres=Postgres(postgres) if postgres is not None else None,
        rankers=rankers(settings, embed, hops),
        body_stores=body_stores(settings),
        include_archived=settings.uds3_include_archived,
        model_identity=lambda: embed.identity,
    )


def rankers(settings: Settings, embed: Embedder, hops: int) -> dict[SearchType, Ranker]:
    """Return the configured searches beside PostgreSQL's; a graph search follows `hops` edges."""
    found: dict[SearchType, Ranker] = {}
    if (chroma := chroma_options(settings)) is not None:
        found["vector"] = ChromaRanker(chroma, embed)
    if (graph := neo4j_options(settings)) is not None:
        # Neo4j's driver imports pandas when it is installed, which is slow: import it only for a graph.
        from shardline_producer.sources.uds3.neo4j.ranker import Neo4jRanker

        found["graph"] = Neo4jRanker(graph, hops)
    return found


def body_stores(settings: Settings) -> list[BodyStore]:
    """Return the body stores, in the order in which they are read."""
    found: list[BodyStore] = []
    if (couch := couch_options(settings)) is not None:
        found.append(CouchBodyStore(couch))
    if (chroma := chroma_options(settings)) is not None:
        found.append(ChromaBodyStore(chroma))
    if (graph := neo4j_options(settings)) is not None:
        from shardline_producer.sources.uds3.neo4j.body_store import Neo4jBodyStore

        found.append(Neo4jBodyStore(graph))
    return found


def uds3_configured(settings: Settings) -> bool:
    """Whether UDS3 is enabled and any store of it is configured."""
    stores = uds3_stores(settings)
    return settings.uds3_enabled and (stores.postgres is not None or bool(stores.rankers))


def uds3_searches(settings: Settings) -> frozenset[SearchType]:
    """Return the types of search that a store is configured for."""
    stores = uds3_stores(settings)
    keyword: frozenset[SearchType] = frozenset({"keyword"} if stores.postgres is not None else ())
    return keyword | frozenset(stores.rankers)


def uds3_probe(settings: Settings) -> Callable[[], Awaitable[None]]:
    """Return a check of UDS3 that raises a ShardlineError when UDS3 cannot serve.

    If PostgreSQL is configured, only PostgreSQL is checked, because no source works without it then.
    """
    stores = uds3_stores(settings)

    async def probe() -> None:
        if stores.postgres is not None:
            async with stores.postgres.connect():
                return
        if not stores.rankers:
            raise SourceUnavailable("no store of UDS3 is configured", hint="set POSTGRES_HOST")
        for ranker in stores.rankers.values():
            await ranker.check()

    return probe


def probes(settings: Settings) -> list[StoreProbe]:
    """Return the stores beside PostgreSQL as `doctor` checks them."""
    found = rankers(settings, make_embedder(embedding_options(settings)), 0)
    couch = couch_options(settings)
    return [
        StoreProbe(
            "chromadb", "CHROMA_HOST is not set", found["vector"].check if "vector" in found else None
        ),
        StoreProbe("neo4j", "NEO4J_URI is not set", found["graph"].check if "graph" in found else None),
        StoreProbe("couchdb", "COUCH_URL is not set", CouchBodyStore(couch).check if couch else None),
    ]
