"""How to reach Kafka."""

import ssl
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How to reach Kafka, and its time-outs. `prefix` covers topics, groups and transactional ids.

    `replication_factor` -1 leaves it to the broker; `compression` is that of documents on the wire.
    """

    bootstrap_servers: str
    prefix: str = ""
    client_id: str = "shardline"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    replication_factor: int = -1
    compression: str | None = None
    session_timeout_ms: int = 30_000
    max_poll_interval_ms: int = 300_000
    request_timeout_ms: int = 30_000
    transaction_timeout_ms: int = 60_000
    max_request_bytes: int = 1 << 28
    fetch_bytes: int = 1 << 21

    def client(self) -> dict[str, Any]:
        """The arguments that every client takes."""
        context = None
        if "SSL" in self.security_protocol:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
            if self.ssl_certfile:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout_ms,
            "security_protocol": self.security_protocol,
            "ssl_context": context,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
        }

    def producer(self, **more: Any) -> AIOKafkaProducer:
        """A producer that waits for all replicas and never writes twice."""
        return AIOKafkaProducer(
            **self.client(),
            acks="all",
            enable_idempotence=True,
            compression_type=self.compression,
            max_batch_size=1 << 20,
            max_request_size=self.max_request_bytes,
            linger_ms=0,
            **more,
        )
