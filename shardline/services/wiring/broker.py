"""The wiring of settings to Kafka."""

import os
from typing import TYPE_CHECKING

from pydantic import SecretStr

from shardline_common.settings.load import Settings

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from shardline_common.kafka.broker import KafkaBroker
    from shardline_common.kafka.oauth import ClientCredentials
    from shardline_common.kafka.options import KafkaOptions


def open_broker(settings: Settings) -> "AbstractAsyncContextManager[KafkaBroker]":
    """Open the clients of Kafka; they are closed when the context ends.

    Raises:
        BrokerUnavailable: Kafka cannot be reached or refuses the credentials.
    """
    from shardline_common.kafka.broker import open_kafka

    return open_kafka(kafka_options(settings))


def kafka_options(settings: Settings) -> "KafkaOptions":
    """Return the options of Kafka's clients, with the plain secrets."""
    from shardline_common.kafka.options import KafkaOptions

    return KafkaOptions(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        prefix=settings.kafka_topic_prefix,
        client_id=f"shardline-{os.getpid()}",
        security_protocol=settings.kafka_security_protocol,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_username=settings.kafka_sasl_username,
        sasl_password=_revealed(settings.kafka_sasl_password),
        tokens=_client_credentials(settings),
        ssl_cafile=settings.kafka_ssl_cafile,
        ssl_certfile=settings.kafka_ssl_certfile,
        ssl_keyfile=settings.kafka_ssl_keyfile,
        ssl_key_password=_revealed(settings.kafka_ssl_key_password),
        replication_factor=settings.kafka_replication_factor,
        compression=None if settings.kafka_compression == "none" else settings.kafka_compression,
        session_timeout_ms=settings.kafka_session_timeout_ms,
        max_poll_interval_ms=settings.kafka_max_poll_interval_ms,
        request_timeout_ms=settings.kafka_request_timeout_ms,
        transaction_timeout_ms=settings.kafka_transaction_timeout_ms,
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _client_credentials(settings: Settings) -> "ClientCredentials | None":
    url, client = settings.kafka_sasl_oauthbearer_token_url, settings.kafka_sasl_oauthbearer_client_id
    secret = _revealed(settings.kafka_sasl_oauthbearer_client_secret)
    if settings.kafka_sasl_mechanism != "OAUTHBEARER" or not (url and client and secret):
        return None
    from shardline_common.kafka.oauth import ClientCredentials, OAuthOptions

    scope, ca_file = settings.kafka_sasl_oauthbearer_scope, settings.kafka_sasl_oauthbearer_cafile
    return ClientCredentials(OAuthOptions(url, client, secret, scope, ca_file))
