"""The options of every Kafka client."""

import ssl
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.codec import has_gzip, has_lz4, has_zstd

from shardline_common.errors import BrokerUnavailable, UsageError
from shardline_common.kafka.oauth import ClientCredentials

_CODECS = {"gzip": has_gzip, "lz4": has_lz4, "zstd": has_zstd}
_OAUTH_SETTINGS = (
    "KAFKA_SASL_OAUTHBEARER_TOKEN_URL, KAFKA_SASL_OAUTHBEARER_CLIENT_ID and "
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET (or KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET_FILE)"
)


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How to reach Kafka. `prefix` covers topics, groups and transactional ids.

    `replication_factor` -1 selects the broker's default. `compression` is the codec of documents; None: no
    compression. `tokens` provides tokens when `sasl_mechanism` is OAUTHBEARER.
    """

    bootstrap_servers: str
    prefix: str = ""
    client_id: str = "shardline"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    tokens: ClientCredentials | None = field(default=None, repr=False)
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_key_password: str | None = field(default=None, repr=False)
    replication_factor: int = -1
    compression: str | None = None
    session_timeout_ms: int = 30_000
    max_poll_interval_ms: int = 300_000
    request_timeout_ms: int = 30_000
    transaction_timeout_ms: int = 60_000
    max_request_bytes: int = 1 << 28
    fetch_bytes: int = 1 << 21
    batch_bytes: int = 1 << 20

    def check(self) -> None:
        """Check the options before a client is made.

        Raises:
            UsageError: a TLS file cannot be used, an option is missing, or a codec is not installed.
        """
        self._tls()
        if self.compression is not None and not _CODECS[self.compression]():
            raise UsageError(
                f"KAFKA_COMPRESSION is {self.compression}, and no library for it is installed",
                hint="install cramjam, or set KAFKA_COMPRESSION=none",
            )
        if not self.security_protocol.startswith("SASL"):
            return
        if self.sasl_mechanism == "OAUTHBEARER":
            if self.tokens is None:
                raise UsageError("KAFKA_SASL_MECHANISM is OAUTHBEARER", hint=f"set {_OAUTH_SETTINGS}")
            self.tokens.check()
        elif not self.sasl_username or not self.sasl_password:
            raise UsageError(
                f"KAFKA_SASL_MECHANISM is {self.sasl_mechanism}, which takes a name and a password",
                hint="set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD (or KAFKA_SASL_PASSWORD_FILE)",
            )

    def _tls(self) -> ssl.SSLContext | None:
        if "SSL" not in self.security_protocol:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
        except OSError as error:
            raise UsageError(f"KAFKA_SSL_CAFILE: {self.ssl_cafile} cannot be used: {error}") from None
        if self.ssl_certfile:
            try:
                # Without a password OpenSSL asks for one on the terminal.
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, self.ssl_key_password or "")
            except OSError as error:
                raise UsageError(
                    f"KAFKA_SSL_CERTFILE: {self.ssl_certfile} cannot be used: {error}",
                    hint="check KAFKA_SSL_KEYFILE and KAFKA_SSL_KEY_PASSWORD",
                ) from None
        return context

    def client(self) -> dict[str, Any]:
        """The arguments of every aiokafka client.

        Raises:
            BrokerUnavailable: a TLS file cannot be used. A rotation may be replacing it; call again.
        """
        try:
            context = self._tls()
        except UsageError as error:
            raise BrokerUnavailable(str(error), hint=error.hint) from None
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout_ms,
            "security_protocol": self.security_protocol,
            "ssl_context": context,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "sasl_oauth_token_provider": self.tokens,
        }

    def producer(self, **more: Any) -> AIOKafkaProducer:
        """An idempotent producer that waits for all replicas. It is not started."""
        return AIOKafkaProducer(
            **self.client(),
            acks="all",
            enable_idempotence=True,
            compression_type=self.compression,
            max_batch_size=self.batch_bytes,
            max_request_size=self.max_request_bytes,
            linger_ms=0,
            **more,
        )
