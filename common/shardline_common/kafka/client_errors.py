"""Translates errors of the Kafka client into errors of Shardline."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiokafka.errors import (
    AuthenticationFailedError,
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    ConsumerStoppedError,
    GroupAuthorizationFailedError,
    IllegalOperation,
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    InvalidProducerEpoch,
    KafkaError,
    ProducerFenced,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    TransactionCoordinatorFenced,
    UnknownError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)

from shardline_common.errors import BrokerRefused, BrokerUnavailable, Fenced, ShardlineError, TopicMissing
from shardline_common.kafka.acls import Right, acl_command
from shardline_common.kafka.answers import Answers, Failure
from shardline_common.kafka.options import KafkaOptions
from shardline_common.kafka.refusals import Refusal, refusal_of
from shardline_common.telemetry.logs import limit_rate

_FENCED = (ProducerFenced, InvalidProducerEpoch, TransactionCoordinatorFenced)
_DENIED = (
    AuthenticationFailedError,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
# The kind of resource that each error is about. Its right is that of the operation, or else this one.
_FORBIDDEN = {
    ClusterAuthorizationFailedError: ("cluster", "IdempotentWrite"),
    GroupAuthorizationFailedError: ("group", "Read"),
    TopicAuthorizationFailedError: ("topic", "Describe"),
    TransactionalIdAuthorizationFailed: ("transactional-id", "Write"),
}
# NotImplementedError: the client and the brokers have no version of a request in common.
_FAILED = (
    TimeoutError,
    KafkaError,
    OSError,
    AssertionError,
    IllegalOperation,
    ConsumerStoppedError,
    NotImplementedError,
)


@dataclass(frozen=True, slots=True)
class Request:
    """An operation of the adapter, for its errors.

    `what` is the failed operation as the start of a message: "the topic x cannot be created". `right` is the
    right that it needs. `answers` are those of the client that it uses. `transactional`: it is one of a
    transactional producer.
    """

    what: str
    right: Right | None = None
    answers: Answers | None = None
    transactional: bool = False


@contextmanager
def translated(request: Request, options: KafkaOptions) -> Iterator[None]:
    """Raise an error of the client as Fenced, TopicMissing, BrokerRefused or BrokerUnavailable."""
    what, servers = request.what, options.bootstrap_servers
    try:
        yield
    except ShardlineError:
        raise
    except _FENCED as error:
        # Kafka also raises the epoch of a producer whose transaction it has aborted.
        hint = f"if there is none, raise KAFKA_TRANSACTION_TIMEOUT_MS (now {options.transaction_timeout_ms})"
        raise Fenced(f"a newer producer took over: {what}", hint=hint) from error
    except UnknownTopicOrPartitionError as error:
        raise TopicMissing(f"{what}: the topic does not exist") from error
    except _DENIED as error:
        hint = "check KAFKA_SECURITY_PROTOCOL and the settings KAFKA_SASL_… and KAFKA_SSL_…"
        cause = f"Kafka at {servers} refuses the credentials"
        raise BrokerRefused(f"{what}: {cause}", hint=hint, cause=cause) from error
    except ssl.SSLError as error:
        hint = "check KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CAFILE and KAFKA_SSL_CERTFILE"
        cause = f"TLS with Kafka at {servers} failed ({error})"
        raise BrokerUnavailable(f"{what}: {cause}", hint=hint, cause=cause) from error
    except _FAILED as error:
        raise _failure(error, request, options) from error


def _failure(error: Exception, request: Request, options: KafkaOptions) -> BrokerUnavailable:
    default_hint = f"is Kafka up at {options.bootstrap_servers}? check KAFKA_BOOTSTRAP_SERVERS"
    refusal = _refusal(error, request, options)
    if refusal is None:
        name = type(error).__name__
        message = f"{request.what} ({name}: {error})" if str(error) else f"{request.what} ({name})"
        cause = f"Kafka at {options.bootstrap_servers}: {name}"
        return BrokerUnavailable(message, hint=default_hint, cause=cause)
    message, hint = f"{request.what}: {refusal.reason}", refusal.hint or default_hint
    cause = f"Kafka at {options.bootstrap_servers}: {refusal.reason}"
    if refusal.permanent:
        return BrokerRefused(message, hint=hint, forbidden=refusal.forbidden, cause=cause)
    return BrokerUnavailable(message, hint=hint, cause=cause)


def _refusal(error: Exception, request: Request, options: KafkaOptions) -> Refusal | None:
    if isinstance(error, BrokerResponseError) and not isinstance(error, UnknownError):
        return explained(error, request, options)
    if isinstance(error, NotImplementedError):
        return explained(IncompatibleBrokerVersion(str(error)), request, options)
    # A time-out, or an error that wraps another: the brokers' last answer says more.
    found = last_refusal(request, options)
    return found or (explained(error, request, options) if isinstance(error, KafkaError) else None)


def last_refusal(request: Request, options: KafkaOptions) -> Refusal | None:
    """What the brokers answered last to the client of this request; None when they refused nothing."""
    last = request.answers.last if request.answers else None
    return explained(last[1], request, options) if last else None


def explained(error: Failure, request: Request, options: KafkaOptions) -> Refusal | None:
    """The meaning of an error during this request."""
    forbidden = _FORBIDDEN.get(type(error))
    if forbidden is None:
        return refusal_of(error, options, transactional=request.transactional)
    resource, operation = forbidden
    names = _names(error)
    right = request.right
    if right is not None and right.resource == resource:
        operation, names = right.operation, names or [right.name] * bool(right.name)
    command = acl_command(_principal(options), resource, (names or ["NAME"])[0], [operation])
    where = f" on the {resource} {', '.join(names)}" if names else f" on the {resource}"
    return Refusal(
        f"Kafka does not allow it: {operation}{where} is missing ({type(error).__name__})",
        f"grant the rights that `shardline doctor --print-acls` prints, here: {command}",
        forbidden=True,
    )


def _names(error: object) -> list[str]:
    # aiokafka gives one name or a set of names; for some requests it gives the broker's sentence.
    found = error.args[0] if isinstance(error, KafkaError) and error.args else ()
    names = [found] if isinstance(found, str) else sorted(map(str, found or ()))
    return [name for name in names if " " not in name]


def _principal(options: KafkaOptions) -> str:
    return f"User:{options.sasl_username or 'shardline'}"


def quiet_client_logs() -> None:
    """Limit the log lines of the client to one a minute for each message format."""
    limit_rate(
        "aiokafka",
        "aiokafka.client",
        "aiokafka.cluster",
        "aiokafka.conn",
        "aiokafka.consumer.fetcher",
        "aiokafka.producer.sender",
        "shardline_common.kafka.patient_client",
    )
