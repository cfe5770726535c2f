"""Translates errors of the Kafka client into errors of Shardline."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    InvalidProducerEpoch,
    KafkaError,
    ProducerFenced,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    TransactionCoordinatorFenced,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)

from shardline_common.errors import BrokerUnavailable, Fenced, ShardlineError, TopicMissing
from shardline_common.telemetry.logs import limit_rate

_FENCED = (ProducerFenced, InvalidProducerEpoch, TransactionCoordinatorFenced)
_DENIED = (
    AuthenticationFailedError,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
_FORBIDDEN = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)


@contextmanager
def translated(what: str, servers: str) -> Iterator[None]:
    """Raise an error of the client as Fenced, TopicMissing or BrokerUnavailable.

    Args:
        what: the failed operation, as the start of the message: "the topic x cannot be created".
        servers: the bootstrap servers, for the message.
    """
    try:
        yield
    except ShardlineError:
        raise
    except _FENCED as error:
        raise Fenced(f"a newer producer took over: {what}") from error
    except UnknownTopicOrPartitionError as error:
        raise TopicMissing(f"{what}: the topic does not exist") from error
    except _DENIED as error:
        hint = "check KAFKA_SECURITY_PROTOCOL and the settings KAFKA_SASL_… and KAFKA_SSL_…"
        raise BrokerUnavailable(f"{what}: Kafka at {servers} refuses the credentials", hint=hint) from error
    except _FORBIDDEN as error:
        message = f"{what}: Kafka does not allow it ({type(error).__name__})"
        hint = "grant the rights that `shardline doctor --print-acls` prints"
        raise BrokerUnavailable(message, hint=hint) from error
    except ssl.SSLError as error:
        hint = "check KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CAFILE and KAFKA_SSL_CERTFILE"
        raise BrokerUnavailable(f"{what}: TLS with Kafka at {servers} failed ({error})", hint=hint) from error
    except (TimeoutError, KafkaError, OSError, AssertionError) as error:
        name = type(error).__name__
        message = f"{what} ({name}: {error})" if str(error) else f"{what} ({name})"
        hint = f"is Kafka up at {servers}? check KAFKA_BOOTSTRAP_SERVERS"
        raise BrokerUnavailable(message, hint=hint) from error


def quiet_client_logs() -> None:
    """Limit the log lines of the client to one a minute for each message format."""
    limit_rate(
        "aiokafka",
        "aiokafka.client",
        "aiokafka.cluster",
        "aiokafka.conn",
        "aiokafka.consumer.fetcher",
        "aiokafka.producer.sender",
    )
