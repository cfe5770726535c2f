"""The wiring of settings to the options of UDS3's stores. They are None for a store without an address."""

from shardline_common.errors import UsageError
from shardline_common.settings.load import Settings
from shardline_producer.sources.http_store import HttpStoreOptions
from shardline_producer.sources.uds3.chroma.collection import ChromaOptions
from shardline_producer.sources.uds3.couch.body_store import CouchOptions, basic_auth
from shardline_producer.sources.uds3.embedding.embedder import EmbeddingOptions
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from shardline_producer.sources.uds3.postgres.options import PostgresOptions


def postgres_options(settings: Settings) -> PostgresOptions | None:
    """Return the options of PostgreSQL."""
    if settings.postgres_host is None:
        return None
    password = settings.postgres_password
    return PostgresOptions(
        host=settings.postgres_host,
        port=settings.postgres_port,
        user=settings.postgres_user,
        password=password.get_secret_value() if password else None,
        database=settings.postgres_database,
        schema=settings.postgres_schema,
        table=settings.postgres_table,
        sslmode=settings.postgres_sslmode,
        sslrootcert=settings.postgres_sslrootcert,
        statement_seconds=settings.postgres_timeout_seconds,
        search_config=settings.postgres_search_config,
    )


def embedding_options(settings: Settings) -> EmbeddingOptions:
    """Return the options of the embedder."""
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
    """Return the options of ChromaDB."""
    if settings.chroma_host is None:
        return None
    scheme = "https" if settings.chroma_tls else "http"
    headers: dict[str, str] = {}
    if settings.chroma_token is not None:
        name, token = settings.chroma_token_header, settings.chroma_token.get_secret_value()
        headers[name] = f"Bearer {token}" if name.startswith("Auth") else token
    http = HttpStoreOptions(
        name="ChromaDB",
        url=f"{scheme}://{_url_host(settings.chroma_host)}:{settings.chroma_port}",
        headers=headers,
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


def neo4j_options(settings: Settings) -> Neo4jOptions | None:
    """Return the options of Neo4j; NEO4J_URI is used before NEO4J_HOST."""
    uri = settings.neo4j_uri
    if uri is None and settings.neo4j_host is not None:
        uri = f"bolt://{_url_host(settings.neo4j_host)}:{settings.neo4j_port}"
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
    """Return the options of CouchDB; COUCH_URL is used before COUCHDB_HOST.

    Raises:
        UsageError: a password is set without a user.
    """
    url = settings.couch_url
    if url is None and settings.couch_host is not None:
        url = f"http://{_url_host(settings.couch_host)}:{settings.couch_port}"
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


def _url_host(name: str) -> str:
    """Return a host as URLs write it: an IPv6 address in brackets."""
    return f"[{name}]" if ":" in name and not name.startswith("[") else name
