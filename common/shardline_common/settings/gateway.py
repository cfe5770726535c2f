"""The settings of the HTTP gateway, and those that it shares with `export`."""

from pathlib import Path

from pydantic import BaseModel, SecretStr

from shardline_common.settings.fields import setting


class GatewaySettings(BaseModel):
    """The settings of the gateway. A setting that Clara has too keeps Clara's name."""

    streaming_enabled: bool = setting(
        True, "false: the stream call and `export` are off", "STREAMING_ENABLED"
    )
    streaming_batch_size: int = setting(
        100, "documents of one chunk of a stream", "STREAMING_BATCH_SIZE", ge=10, le=1000
    )
    uds3_enabled: bool = setting(True, "false: the gateway treats UDS3 as not configured", "UDS3_ENABLED")
    gateway_host: str | None = setting(
        None,
        "address of the gateway; none: all interfaces, or loopback where no token is required",
        "GATEWAY_HOST",
    )
    gateway_port: int = setting(
        45_681, "port of the gateway; 0: any free port", "CLARA_DATASET_PORT", ge=0, le=65535
    )
    environment: str = setting(
        "development", "name of the installation in /health and in the log", "CLARA_ENVIRONMENT"
    )
    security_mode: str = setting(
        "production",
        "production and development require a token; debug and testing do not",
        "CLARA_SECURITY_MODE",
        old=("SECURITY_MODE",),
        pattern="^(production|development|debug|testing)$",
    )
    jwt_enabled: bool = setting(
        True, "false: no token is required; refused in production", "CLARA_JWT_ENABLED"
    )
    jwt_algorithm: str = setting(
        "RS256", "algorithm of tokens; only RS256", "JWT_ALGORITHM", pattern="^RS256$"
    )
    keycloak_url: str | None = setting(
        None, "base URL of Keycloak, https://host[/auth]", "KEYCLOAK_URL", pattern="^https?://"
    )
    keycloak_realm: str = setting("vcc", "realm whose tokens are accepted", "KEYCLOAK_REALM")
    keycloak_client_id: str = setting(
        "clara-dataset-backend", "audience that a token must name", "KEYCLOAK_CLIENT_ID"
    )
    debug_user_id: str = setting("debug-user", "user id where no token is required", "DEBUG_USER_ID")
    debug_user_email: str = setting("debug@localhost", "e-mail address of that user", "DEBUG_USER_EMAIL")
    debug_user_roles: str = setting("admin", "roles of that user, separated by commas", "DEBUG_USER_ROLES")
    gateway_cors_origins: str = setting(
        "",
        "origins that may call by CORS, separated by commas",
        "GATEWAY_CORS_ORIGINS",
    )
    gateway_body_bytes: int = setting(
        1 << 20, "largest body of a request, in bytes", "GATEWAY_BODY_BYTES", ge=1024
    )
    gateway_requests_per_minute: int = setting(
        600, "requests per minute of one user", "GATEWAY_REQUESTS_PER_MINUTE", ge=1
    )
    gateway_streams: int = setting(
        50, "streams at once, of all users; each may hold a connection to PostgreSQL", "GATEWAY_STREAMS", ge=1
    )
    gateway_streams_per_user: int = setting(
        4, "streams at once, of one user", "GATEWAY_STREAMS_PER_USER", ge=1
    )
    gateway_stall_seconds: float = setting(
        120.0,
        "seconds after which a client that reads nothing is disconnected",
        "GATEWAY_STALL_SECONDS",
        gt=0,
    )
    gateway_connections: int = setting(
        1024,
        "connections at once; fewer where the limit of open files is lower",
        "GATEWAY_CONNECTIONS",
        ge=8,
    )
    gateway_connections_per_address: int = setting(
        512,
        "connections at once, of one address; an IPv6 network /64 counts as one",
        "GATEWAY_CONNECTIONS_PER_ADDRESS",
        ge=1,
    )
    gateway_header_seconds: float = setting(
        10.0, "seconds in which a client must send the head of a request", "GATEWAY_HEADER_SECONDS", gt=0
    )
    gateway_body_seconds: float = setting(
        30.0, "seconds in which a client must send the body of a request", "GATEWAY_BODY_SECONDS", gt=0
    )
    gateway_refusals_per_minute: int | None = setting(
        None,
        "requests per minute of one address that are answered with 401; further ones are answered with 429 "
        "and not recorded; none: a twentieth of GATEWAY_REQUESTS_PER_MINUTE",
        "GATEWAY_REFUSALS_PER_MINUTE",
        ge=1,
    )
    gateway_max_top_k: int = setting(0, "highest top_k over HTTP; 0: no limit", "GATEWAY_MAX_TOP_K", ge=0)
    gateway_link_seconds: int = setting(
        900, "seconds that a download link is valid", "GATEWAY_LINK_SECONDS", ge=10
    )
    gateway_link_key: SecretStr | None = setting(
        None,
        "key of download links; the same for all gateways; none: a new one at each start",
        "GATEWAY_LINK_KEY",
    )
    gateway_audit_log: Path | None = setting(
        None, "file that the audit log is appended to; none: the log", "GATEWAY_AUDIT_LOG"
    )
    gateway_audit_log_bytes: int = setting(
        16 << 20,
        "size at which another file of the audit log is begun",
        "GATEWAY_AUDIT_LOG_BYTES",
        ge=1 << 16,
    )
    gateway_audit_log_files: int = setting(
        100, "closed files of the audit log that are kept; 0: all", "GATEWAY_AUDIT_LOG_FILES", ge=0
    )
    gateway_ownership: str = setting(
        "owner",
        "who may cancel, retry and purge a dataset: owner (its owner and admins), or shared (by role)",
        "GATEWAY_OWNERSHIP",
        pattern="^(owner|shared)$",
    )
    gateway_s3_sources: str = setting(
        "",
        "buckets and prefixes in S3 that jobs of the gateway may read, as in s3://laws, s3://archive/2026/; "
        "none: they read nothing there",
        "GATEWAY_S3_SOURCES",
    )
    gateway_trusted_proxies: str = setting(
        "127.0.0.1, ::1",
        "proxies whose X-Forwarded-Proto and X-Forwarded-For are believed: addresses and networks, separated "
        "by commas",
        "GATEWAY_TRUSTED_PROXIES",
    )
