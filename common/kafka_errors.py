"""Foreign errors of the Kafka client become ours here, at the boundary."""

import logging
import ssl
import time
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

from common.errors import BrokerUnavailable, Fenced, ShardlineError, TopicMissing

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


class _Seldom(logging.Filter):
    """Lets one message of a form through a minute: a client of a deleted topic logs thousands a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._last.get(record.msg, -60.0) < 60.0:  # noqa: PLR2004 - a minute
            return False
        self._last[record.msg] = now
        return True


def quiet_client_logs() -> None:
    """Keep the client's own logs to what matters, and to once a minute."""
    for name in ("aiokafka", "aiokafka.cluster", "aiokafka.conn", "aiokafka.client"):
        logger = logging.getLogger(name)
        if not any(isinstance(item, _Seldom) for item in logger.filters):
            logger.addFilter(_Seldom())
