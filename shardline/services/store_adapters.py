"""From settings to the stores that search and hold bodies; None where one is not configured."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shardline_common.errors import UsageError
from shardline_common.job.spec import SearchType
from shardline_common.settings.load import Settings
from shardline_producer.sources.http_store import HttpStoreOptions
from shardline_producer.sources.uds3.chroma.body_store import ChromaBodyStore
from shardline_producer.sources.uds3.chroma.collection import ChromaOptions
from shardline_producer.sources.uds3.chroma.ranker import ChromaRanker
from shardline_producer.sources.uds3.couch.body_store import CouchBodyStore, CouchOptions, basic_auth
from shardline_producer.sources.uds3.embedding.embedder import Embedder, EmbeddingOptions
from shardline_producer.sources.uds3.embedding.factory import make_embedder
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from shardline_producer.sources.uds3.store_ports import BodyStore, Ranker


@dataclass(frozen=True, slots=True)
class StoreProbe:
    """A store as `doctor` tries it. `check` None: not configured, and `missing` says what is not set."""

    name: str
    missing: str
    check: Callable[[], Awaitable[str]] | None


def rankers(settings: Settings, embed: Embedder, hops: int) -> dict[SearchType, Ranker]:
    """The searches beside PostgreSQL's; a graph search follows `hops` edges."""
    found: dict[SearchType, Ranker] = {}
    if (chroma := chroma_options(settings)) is not None:
        found["vector"] = ChromaRanker(chroma, embed)
    if (graph := neo4j_options(settings)) is not None:
        # The driver imports pandas where it finds it: that is for those who have a graph.
        from shardline_producer.sources.uds3.neo4j.ranker import Neo4jRanker  # noqa: PLC0415

        found["graph"] = Neo4jRanker(graph, hops)
    return found


def body_stores(settings: Settings) -> list[BodyStore]:
    """Where bodies are asked for, in this order."""
    couch, chroma = couch_options(settings), chroma_options(settings)
    found: list[BodyStore] = [CouchBodyStore(couch)] if couch else []
    return [*found, ChromaBodyStore(chroma)] if chroma else found


def probes(settings: Settings) -> list[StoreProbe]:
    """The stores as `doctor` tries them."""
    found = rankers(settings, make_embedder(embedding_options(settings)), 0)
    couch = couch_options(settings)
    return [
        StoreProbe(
            "chromadb", "CHROMA_HOST is not set", found["vector"].check if "vector" in found else None
        ),
        StoreProbe("neo4j", "NEO4J_URI is not set", found["graph"].check if "graph" in found else None),
        StoreProbe("couchdb", "COUCH_URL is not set", CouchBodyStore(couch).check if couch else None),
    ]


def embedding_options(settings: Settings) -> EmbeddingOptions:
    """How queries are embedded."""
    token = settings.embedding_token
    return EmbeddingOptions(
        model=settings.embedding_model_name,
        url=settings.embedding_url,
        token=token.get_secret_value() if token else None,
        ca_file=settings.embedding_ca_file,
        path=settings.embedding_model_path,
        timeout=settings.search_timeout_seconds,
    )


def chroma_options(settings: Settings) -> ChromaOptions | None:
    """ChromaDB."""
    if settings.chroma_host is None:
        return None
    scheme = "https" if settings.chroma_tls else "http"
    http = HttpStoreOptions(
        name="ChromaDB",
        url=f"{scheme}://{_host(settings.chroma_host)}:{settings.chroma_port}",
        headers=_chroma_headers(settings),
        ca_file=settings.chroma_ca_file,
        timeout=settings.search_timeout_seconds,
        address_setting="CHROMA_HOST",
        secret_setting="CHROMA_TOKEN",  # noqa: S106 - the setting's name
    )
    return ChromaOptions(
        http,
        tenant=settings.chroma_tenant,
        database=settings.chroma_database,
        collection=settings.chroma_collection,
        include_archived=settings.uds3_include_archived,
    )


def _chroma_headers(settings: Settings) -> dict[str, str]:
    if settings.chroma_token is None:
        return {}
    header, token = settings.chroma_token_header, settings.chroma_token.get_secret_value()
    return {header: f"Bearer {token}" if header.startswith("Auth") else token}


def neo4j_options(settings: Settings) -> Neo4jOptions | None:
    """Neo4j."""
    uri = settings.neo4j_uri
    if uri is None and settings.neo4j_host is not None:
        uri = f"bolt://{_host(settings.neo4j_host)}:{settings.neo4j_port}"
    if uri is None:
        return None
    password = settings.neo4j_password
    return Neo4jOptions(
        uri=uri,
        user=settings.neo4j_user,
        password=password.get_secret_value() if password else None,
        database=settings.neo4j_database,
        ca_file=settings.neo4j_ca_file,
        timeout=settings.search_timeout_seconds,
        query_timeout=settings.graph_query_seconds,
        include_archived=settings.uds3_include_archived,
    )


def couch_options(settings: Settings) -> CouchOptions | None:
    """CouchDB.

    Raises:
        UsageError: a password without a user.
    """
    url = settings.couch_url
    if url is None and settings.couch_host is not None:
        url = f"http://{_host(settings.couch_host)}:{settings.couch_port}"
    if url is None:
        return None
    password = settings.couch_password.get_secret_value() if settings.couch_password else ""
    if password and not settings.couch_user:
        raise UsageError("COUCH_PASSWORD is set without COUCH_USER", hint="set both, or neither")
    http = HttpStoreOptions(
        name="CouchDB",
        url=url.rstrip("/"),
        headers=basic_auth(settings.couch_user, password) if settings.couch_user else {},
        ca_file=settings.couch_ca_file,
        timeout=settings.search_timeout_seconds,
        address_setting="COUCH_URL",
        secret_setting="COUCH_USER and COUCH_PASSWORD",  # noqa: S106 - the settings' names
    )
    return CouchOptions(http, settings.couch_database, settings.uds3_include_archived)


def _host(name: str) -> str:
    """A host as URLs write it: an IPv6 address in brackets."""
    return f"[{name}]" if ":" in name and not name.startswith("[") else name
