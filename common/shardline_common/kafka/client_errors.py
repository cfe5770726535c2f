"""Foreign errors of the Kafka client become ours here, at the boundary."""

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
from shardline_common.telemetry.logs import hold_back

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
    """Raise what goes wrong inside as a BrokerUnavailable that says what could not be done, and where."""
    try:
        yield
    except ShardlineError:
        raise
    except _FENCED as error:
        raise Fenced(f"a newer producer took over: {what}") from error
    except UnknownTopicOrPartitionError as error:
        raise TopicMissing(f"{what}: the topic is not there") from error
    except _DENIED as error:
        hint = "check KAFKA_SECURITY_PROTOCOL and the settings KAFKA_SASL_… and KAFKA_SSL_…"
        raise BrokerUnavailable(f"{what}: Kafka at {servers} refuses the credentials", hint=hint) from error
    except _FORBIDDEN as error:
        about = f"{what}: Kafka does not allow it ({type(error).__name__})"
        hint = "`shardline doctor --print-acls` prints the rights that each process needs"
        raise BrokerUnavailable(about, hint=hint) from error
    except ssl.SSLError as error:
        hint = "check KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CAFILE and KAFKA_SSL_CERTFILE"
        raise BrokerUnavailable(f"{what}: no TLS with Kafka at {servers} ({error})", hint=hint) from error
    except (TimeoutError, KafkaError, OSError, AssertionError) as error:
        name = type(error).__name__
        about = f"{what} ({name}: {error})" if str(error) else f"{what} ({name})"
        hint = f"is Kafka up at {servers}? KAFKA_BOOTSTRAP_SERVERS tells where it is"
        raise BrokerUnavailable(about, hint=hint) from error


def quiet_client_logs() -> None:
    """Let each message of the client's own logs through once a minute."""
    hold_back(
        "aiokafka",
        "aiokafka.client",
        "aiokafka.cluster",
        "aiokafka.conn",
        "aiokafka.consumer.fetcher",
        "aiokafka.producer.sender",
    )
