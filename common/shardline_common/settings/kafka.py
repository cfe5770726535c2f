"""The settings of Kafka: addresses, credentials and time-outs."""

from pydantic import BaseModel, SecretStr

from shardline_common.settings.fields import setting


class KafkaSettings(BaseModel):
    """The connection to Kafka of every process."""

    kafka_bootstrap_servers: str = setting(
        "localhost:9092", "bootstrap servers, host:port, separated by commas", "KAFKA_BOOTSTRAP_SERVERS"
    )
    kafka_security_protocol: str = setting(
        "PLAINTEXT",
        "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
        "KAFKA_SECURITY_PROTOCOL",
        pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$",
    )
    kafka_sasl_mechanism: str = setting(
        "PLAIN",
        "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
        "KAFKA_SASL_MECHANISM",
        pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512|OAUTHBEARER)$",
    )
    kafka_sasl_username: str | None = setting(None, "user name for SASL", "KAFKA_SASL_USERNAME")
    kafka_sasl_password: SecretStr | None = setting(None, "password for SASL", "KAFKA_SASL_PASSWORD")
    kafka_sasl_oauthbearer_token_url: str | None = setting(
        None,
        "token endpoint of the identity provider, for OAUTHBEARER",
        "KAFKA_SASL_OAUTHBEARER_TOKEN_URL",
        pattern="^https?://[^@]+$",
    )
    kafka_sasl_oauthbearer_client_id: str | None = setting(
        None, "client id at that endpoint", "KAFKA_SASL_OAUTHBEARER_CLIENT_ID"
    )
    kafka_sasl_oauthbearer_client_secret: SecretStr | None = setting(
        None, "secret of that client", "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET"
    )
    kafka_sasl_oauthbearer_scope: str | None = setting(
        None, "scope of the token", "KAFKA_SASL_OAUTHBEARER_SCOPE"
    )
    kafka_sasl_oauthbearer_cafile: str | None = setting(
        None, "CA bundle (PEM) for that endpoint", "KAFKA_SASL_OAUTHBEARER_CAFILE"
    )
    kafka_ssl_cafile: str | None = setting(
        None, "CA bundle (PEM) of the brokers; by default the system's", "KAFKA_SSL_CAFILE"
    )
    kafka_ssl_certfile: str | None = setting(None, "client certificate (PEM)", "KAFKA_SSL_CERTFILE")
    kafka_ssl_keyfile: str | None = setting(None, "key of the client certificate (PEM)", "KAFKA_SSL_KEYFILE")
    kafka_ssl_key_password: SecretStr | None = setting(
        None, "password of that key, if it has one", "KAFKA_SSL_KEY_PASSWORD"
    )
    kafka_topic_prefix: str = setting(
        "",
        "prefix of topics, groups and transactional ids",
        "KAFKA_TOPIC_PREFIX",
        pattern=r"^[a-zA-Z0-9._-]*$",
    )
    kafka_replication_factor: int = setting(
        -1,
        "replicas of created topics; -1: the broker's default",
        "KAFKA_REPLICATION_FACTOR",
        ge=-1,
    )
    kafka_compression: str = setting(
        "none",
        "compression of documents in Kafka: none, gzip, lz4 or zstd",
        "KAFKA_COMPRESSION",
        pattern="^(none|gzip|lz4|zstd)$",
    )
    kafka_session_timeout_ms: int = setting(
        30_000,
        "session time-out: without a heartbeat for this time a member is removed from its group",
        "KAFKA_SESSION_TIMEOUT_MS",
        ge=1000,
    )
    kafka_max_poll_interval_ms: int = setting(
        300_000,
        "without a poll for this time a member is removed from its group",
        "KAFKA_MAX_POLL_INTERVAL_MS",
        ge=1000,
    )
    kafka_request_timeout_ms: int = setting(
        30_000, "time-out of one request to Kafka", "KAFKA_REQUEST_TIMEOUT_MS", ge=1000
    )
    kafka_transaction_timeout_ms: int = setting(
        60_000, "time after which Kafka aborts an open transaction", "KAFKA_TRANSACTION_TIMEOUT_MS", ge=1000
    )
    jobs_partitions: int = setting(
        8,
        "partitions of dataset.jobs and dataset.checkpoints when they are created",
        "SHARDLINE_JOBS_PARTITIONS",
        ge=1,
    )
