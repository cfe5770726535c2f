"""The settings of the sources: the stores of UDS3, the embedder, and ThemisDB."""

from pathlib import Path

from pydantic import BaseModel, SecretStr

from shardline_common.settings.fields import setting


class SourceSettings(BaseModel):
    """The stores that jobs read. A store without an address is not configured."""

    max_window_bytes: int = setting(
        2_147_483_648,
        "memory that the windows over 128 MiB of compressed files may take together in a process",
        "SHARDLINE_MAX_WINDOW_BYTES",
        ge=134_217_728,
    )
    postgres_host: str | None = setting(
        None,
        "host of UDS3's PostgreSQL; none: not configured",
        "POSTGRES_HOST",
        old=("UDS3_POSTGRES_HOST",),
    )
    postgres_port: int = setting(
        5432, "port of PostgreSQL", "POSTGRES_PORT", old=("UDS3_POSTGRES_PORT",), ge=1, le=65535
    )
    postgres_user: str | None = setting(
        None,
        "user of PostgreSQL; SELECT is the only right it needs",
        "POSTGRES_USER",
        old=("UDS3_POSTGRES_USER",),
    )
    postgres_password: SecretStr | None = setting(
        None, "password of that user", "POSTGRES_PASSWORD", old=("UDS3_POSTGRES_PASSWORD",)
    )
    postgres_database: str = setting(
        "postgres",
        "database of UDS3 in PostgreSQL",
        "POSTGRES_DATABASE",
        "POSTGRES_DB",
        old=("UDS3_POSTGRES_DATABASE",),
    )
    postgres_schema: str = setting(
        "public", "schema of UDS3's tables", "POSTGRES_SCHEMA", old=("UDS3_POSTGRES_SCHEMA",)
    )
    postgres_table: str | None = setting(
        None,
        "table of the documents; none: the first of UDS3's tables that exists (docs/sources.md)",
        "POSTGRES_TABLE",
    )
    postgres_search_config: str | None = setting(
        None,
        "text search configuration of the tables; none: the one that fills them (docs/sources.md)",
        "POSTGRES_SEARCH_CONFIG",
    )
    postgres_sslmode: str = setting(
        "prefer",
        "TLS with PostgreSQL: disable, prefer, require, verify-ca or verify-full",
        "POSTGRES_SSLMODE",
        pattern="^(disable|prefer|require|verify-ca|verify-full)$",
    )
    postgres_sslrootcert: str | None = setting(None, "CA bundle (PEM) for PostgreSQL", "POSTGRES_SSLROOTCERT")
    postgres_timeout_seconds: float = setting(
        300.0, "time-out of one statement, in seconds", "POSTGRES_TIMEOUT_SECONDS", gt=0
    )
    uds3_include_archived: bool = setting(
        False,
        "true: also export archived documents (processing_status archived, archived, archived_at)",
        "UDS3_INCLUDE_ARCHIVED",
    )
    chroma_host: str | None = setting(None, "host of ChromaDB", "CHROMA_HOST", old=("CHROMADB_HOST",))
    chroma_port: int = setting(
        8000, "port of ChromaDB", "CHROMA_PORT", old=("CHROMADB_PORT",), ge=1, le=65535
    )
    chroma_tls: bool = setting(False, "use TLS with ChromaDB", "CHROMA_TLS", "CHROMA_SSL")
    chroma_ca_file: str | None = setting(None, "CA bundle (PEM) of ChromaDB", "CHROMA_CA_FILE")
    chroma_token: SecretStr | None = setting(None, "token, if ChromaDB needs one", "CHROMA_TOKEN")
    chroma_token_header: str = setting(
        "Authorization",
        "header of the token: Authorization (as Bearer) or X-Chroma-Token",
        "CHROMA_TOKEN_HEADER",
        pattern="^(Authorization|X-Chroma-Token)$",
    )
    chroma_tenant: str = setting("default_tenant", "tenant of ChromaDB", "CHROMA_TENANT")
    chroma_database: str = setting("default_database", "database of ChromaDB", "CHROMA_DATABASE")
    chroma_collection: str = setting("document_chunks", "collection of the chunks", "CHROMA_COLLECTION")
    embedding_model_name: str = setting(
        "all-MiniLM-L6-v2", "model that the vectors of the collection were made with", "EMBEDDING_MODEL_NAME"
    )
    embedding_model_path: Path | None = setting(
        None, "folder with model.onnx and tokenizer.json of that model (extra onnx)", "EMBEDDING_MODEL_PATH"
    )
    embedding_url: str | None = setting(
        None,
        "embedding service: .../v1/embeddings (OpenAI), or .../embed (text-embeddings-inference)",
        "EMBEDDING_URL",
        pattern=r"^https?://[^/@]+(/[^@]*)?$",
    )
    embedding_token: SecretStr | None = setting(None, "token of the embedding service", "EMBEDDING_TOKEN")
    embedding_ca_file: str | None = setting(
        None, "CA bundle (PEM) of the embedding service", "EMBEDDING_CA_FILE"
    )
    neo4j_uri: str | None = setting(
        None,
        "Neo4j, such as neo4j+s://graph.example:7687",
        "NEO4J_URI",
        pattern=r"^(bolt|neo4j)(\+s|\+ssc)?://[^/@]+$",
    )
    neo4j_host: str | None = setting(None, "host of Neo4j, if NEO4J_URI is not set", "NEO4J_HOST")
    neo4j_port: int = setting(7687, "Bolt port of Neo4j, used with NEO4J_HOST", "NEO4J_PORT", ge=1, le=65535)
    neo4j_user: str | None = setting(None, "user of Neo4j", "NEO4J_USER")
    neo4j_password: SecretStr | None = setting(None, "password of that user", "NEO4J_PASSWORD")
    neo4j_database: str | None = setting(None, "database; none: the user's home database", "NEO4J_DATABASE")
    neo4j_ca_file: str | None = setting(
        None, "CA bundle (PEM) of Neo4j, with a URI without +s", "NEO4J_CA_FILE"
    )
    couch_url: str | None = setting(
        None,
        "CouchDB, such as https://couch.example:6984",
        "COUCH_URL",
        pattern=r"^https?://[^/@]+(/[^@]*)?$",
    )
    couch_host: str | None = setting(None, "host of CouchDB, if COUCH_URL is not set", "COUCHDB_HOST")
    couch_port: int = setting(5984, "port of CouchDB, used with COUCHDB_HOST", "COUCHDB_PORT", ge=1, le=65535)
    couch_user: str | None = setting(None, "user of CouchDB", "COUCH_USER", old=("COUCHDB_USER",))
    couch_password: SecretStr | None = setting(
        None, "password of that user", "COUCH_PASSWORD", old=("COUCHDB_PASSWORD",)
    )
    couch_database: str | None = setting(
        None,
        "database of bodies; none: only those that couchdb_refs name",
        "COUCH_DATABASE",
        old=("COUCHDB_DATABASE",),
    )
    couch_ca_file: str | None = setting(None, "CA bundle (PEM) of CouchDB", "COUCH_CA_FILE")
    search_timeout_seconds: float = setting(
        30.0,
        "read time-out of a store or of the embedding service, in seconds",
        "SHARDLINE_SEARCH_TIMEOUT_SECONDS",
        gt=0,
    )
    graph_query_seconds: float = setting(
        600.0, "time-out of one query of Neo4j, in seconds", "SHARDLINE_GRAPH_QUERY_SECONDS", gt=0
    )
    themis_url: str | None = setting(
        None, "address of ThemisDB, as https://host:port", "THEMIS_URL", pattern="^https?://[^/]+"
    )
    themis_token: SecretStr | None = setting(
        None,
        "token with the scope data:read",
        "THEMIS_TOKEN",
        old=("THEMIS_TOKEN_READONLY", "THEMIS_TOKEN_ADMIN"),
    )
    themis_ca_bundle: str | None = setting(None, "CA bundle (PEM) for ThemisDB", "THEMIS_CA_BUNDLE")
    themis_rate: float = setting(
        100.0,
        "requests per minute that this process may send to ThemisDB; 0: no limit; the server allows 100",
        "THEMIS_RATE",
        ge=0,
    )
    themis_connections: int = setting(
        8, "requests of one job to ThemisDB at once", "THEMIS_CONNECTIONS", ge=1, le=64
    )
    themis_page: int = setting(1000, "rows of one response of ThemisDB", "THEMIS_PAGE", ge=1, le=5_000)
    themis_timeout_seconds: float = setting(
        60.0, "read time-out of ThemisDB, in seconds", "THEMIS_TIMEOUT_SECONDS", gt=0
    )
