"""Foreign errors of the Kafka client become ours here, at the boundary."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    AuthenticationFailedError,
    InvalidProducerEpoch,
    KafkaError,
    ProducerFenced,
    SaslAuthenticationFailed,
    TransactionCoordinatorFenced,
    UnknownTopicOrPartitionError,
)

from common.errors import BrokerUnavailable, Fenced, ShardlineError, TopicMissing
from common.logs import hold_back

_FENCED = (ProducerFenced, InvalidProducerEpoch, TransactionCoordinatorFenced)
_DENIED = (AuthenticationFailedError, SaslAuthenticationFailed)


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
        hint = "check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SECURITY_PROTOCOL"
        raise BrokerUnavailable(f"{what}: Kafka at {servers} refuses the credentials", hint=hint) from error
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
