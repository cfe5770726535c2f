"""The settings of what jobs read: the stores of UDS3, their embedder, and ThemisDB."""

from pathlib import Path

from pydantic import BaseModel, SecretStr

from shardline_common.settings.fields import setting


class SourceSettings(BaseModel):
    """Where the stores are, and how they are reached. What has no address is not configured."""

    postgres_host: str | None = setting(
        None,
        "host of UDS3's PostgreSQL; none: it is not configured",
        "POSTGRES_HOST",
        old=("UDS3_POSTGRES_HOST",),
    )
    postgres_port: int = setting(
        5432, "its port", "POSTGRES_PORT", old=("UDS3_POSTGRES_PORT",), ge=1, le=65535
    )
    postgres_user: str | None = setting(
        None, "user; SELECT is enough", "POSTGRES_USER", old=("UDS3_POSTGRES_USER",)
    )
    postgres_password: SecretStr | None = setting(
        None, "password", "POSTGRES_PASSWORD", old=("UDS3_POSTGRES_PASSWORD",)
    )
    postgres_database: str = setting(
        "postgres", "database", "POSTGRES_DATABASE", "POSTGRES_DB", old=("UDS3_POSTGRES_DATABASE",)
    )
    postgres_schema: str = setting(
        "public", "schema of UDS3's tables", "POSTGRES_SCHEMA", old=("UDS3_POSTGRES_SCHEMA",)
    )
    postgres_table: str | None = setting(
        None,
        "table whose rows are the documents; none: the first there is of UDS3's (docs/sources.md)",
        "POSTGRES_TABLE",
    )
    postgres_sslmode: str = setting(
        "prefer",
        "disable, prefer, require, verify-ca or verify-full",
        "POSTGRES_SSLMODE",
        pattern="^(disable|prefer|require|verify-ca|verify-full)$",
    )
    postgres_sslrootcert: str | None = setting(None, "CA bundle (PEM) of PostgreSQL", "POSTGRES_SSLROOTCERT")
    postgres_timeout_seconds: float = setting(
        300.0, "a statement that takes longer is given up", "POSTGRES_TIMEOUT_SECONDS", gt=0
    )
    uds3_include_archived: bool = setting(
        False, "export documents whose processing_status is archived", "UDS3_INCLUDE_ARCHIVED"
    )
    chroma_host: str | None = setting(None, "host of ChromaDB", "CHROMA_HOST", old=("CHROMADB_HOST",))
    chroma_port: int = setting(8000, "its port", "CHROMA_PORT", old=("CHROMADB_PORT",), ge=1, le=65535)
    chroma_tls: bool = setting(False, "speak TLS with it", "CHROMA_TLS", "CHROMA_SSL")
    chroma_ca_file: str | None = setting(None, "CA bundle (PEM)", "CHROMA_CA_FILE")
    chroma_token: SecretStr | None = setting(None, "token, where it wants one", "CHROMA_TOKEN")
    chroma_token_header: str = setting(
        "Authorization",
        "header of the token: Authorization (as a bearer) or X-Chroma-Token",
        "CHROMA_TOKEN_HEADER",
        pattern="^(Authorization|X-Chroma-Token)$",
    )
    chroma_tenant: str = setting("default_tenant", "tenant", "CHROMA_TENANT")
    chroma_database: str = setting("default_database", "database", "CHROMA_DATABASE")
    chroma_collection: str = setting("document_chunks", "collection of the chunks", "CHROMA_COLLECTION")
    embedding_model_name: str = setting(
        "all-MiniLM-L6-v2", "model that the collection was filled with", "EMBEDDING_MODEL_NAME"
    )
    embedding_model_path: Path | None = setting(
        None, "folder with its model.onnx and tokenizer.json (extra onnx)", "EMBEDDING_MODEL_PATH"
    )
    embedding_url: str | None = setting(
        None,
        "service that embeds: .../v1/embeddings as OpenAI's, or .../embed of text-embeddings-inference",
        "EMBEDDING_URL",
        pattern=r"^https?://[^/@]+(/[^@]*)?$",
    )
    embedding_token: SecretStr | None = setting(None, "its token", "EMBEDDING_TOKEN")
    embedding_ca_file: str | None = setting(None, "CA bundle (PEM)", "EMBEDDING_CA_FILE")
    neo4j_uri: str | None = setting(
        None,
        "Neo4j, such as neo4j+s://graph.example:7687",
        "NEO4J_URI",
        pattern=r"^(bolt|neo4j)(\+s|\+ssc)?://[^/@]+$",
    )
    neo4j_host: str | None = setting(None, "its host, where NEO4J_URI is not set", "NEO4J_HOST")
    neo4j_port: int = setting(7687, "its Bolt port beside NEO4J_HOST", "NEO4J_PORT", ge=1, le=65535)
    neo4j_user: str | None = setting(None, "user name", "NEO4J_USER")
    neo4j_password: SecretStr | None = setting(None, "password", "NEO4J_PASSWORD")
    neo4j_database: str | None = setting(None, "database; none is the user's own", "NEO4J_DATABASE")
    neo4j_ca_file: str | None = setting(None, "CA bundle (PEM), with a URI without +s", "NEO4J_CA_FILE")
    couch_url: str | None = setting(
        None,
        "CouchDB, such as https://couch.example:6984",
        "COUCH_URL",
        pattern=r"^https?://[^/@]+(/[^@]*)?$",
    )
    couch_host: str | None = setting(None, "its host, where COUCH_URL is not set", "COUCHDB_HOST")
    couch_port: int = setting(5984, "its port beside COUCHDB_HOST", "COUCHDB_PORT", ge=1, le=65535)
    couch_user: str | None = setting(None, "user name", "COUCH_USER", old=("COUCHDB_USER",))
    couch_password: SecretStr | None = setting(None, "password", "COUCH_PASSWORD", old=("COUCHDB_PASSWORD",))
    couch_database: str | None = setting(
        None,
        "database of bodies; none: only where couchdb_refs point",
        "COUCH_DATABASE",
        old=("COUCHDB_DATABASE",),
    )
    couch_ca_file: str | None = setting(None, "CA bundle (PEM)", "COUCH_CA_FILE")
    search_timeout_seconds: float = setting(
        30.0,
        "a store or embedding service that sends nothing for so long is taken for away",
        "SHARDLINE_SEARCH_TIMEOUT_SECONDS",
        gt=0,
    )
    graph_query_seconds: float = setting(
        600.0, "longest time of one query of Neo4j", "SHARDLINE_GRAPH_QUERY_SECONDS", gt=0
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
    themis_ca_bundle: str | None = setting(None, "CA bundle (PEM) of ThemisDB", "THEMIS_CA_BUNDLE")
    themis_rate: float = setting(
        100.0,
        "requests a minute that this process may send to ThemisDB; 0 is no limit; the server's own is 100",
        "THEMIS_RATE",
        ge=0,
    )
    themis_connections: int = setting(
        8, "requests to ThemisDB at once, of one job", "THEMIS_CONNECTIONS", ge=1, le=64
    )
    themis_page: int = setting(1000, "rows of one answer of ThemisDB", "THEMIS_PAGE", ge=1, le=5_000)
    themis_timeout_seconds: float = setting(
        60.0, "ThemisDB, silent for so long, is taken for away", "THEMIS_TIMEOUT_SECONDS", gt=0
    )
