"""What the errors of Kafka mean: the setting of the brokers or of Shardline that causes each, and a remedy.

An error is permanent when Kafka repeats it until somebody changes a setting or a right. Others end by
themselves, or with the return of a broker.
"""

from dataclasses import dataclass

from aiokafka.errors import (
    BrokerNotAvailableError,
    BrokerResponseError,
    ConcurrentTransactions,
    CorruptRecordException,
    FetchSessionIdNotFound,
    GroupCoordinatorNotAvailableError,
    IncompatibleBrokerVersion,
    InconsistentGroupProtocolError,
    InvalidConfigurationError,
    InvalidFetchSessionEpoch,
    InvalidGroupIdError,
    InvalidPartitionsError,
    InvalidProducerIdMapping,
    InvalidReplicationFactorError,
    InvalidSessionTimeoutError,
    InvalidTimestampError,
    InvalidTopicError,
    InvalidTransactionTimeout,
    InvalidTxnState,
    KafkaError,
    KafkaStorageError,
    LeaderNotAvailableError,
    ListenerNotFound,
    LogDirNotFound,
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    OutOfOrderSequenceNumber,
    PolicyViolationError,
    ReassignmentInProgress,
    RebalanceInProgressError,
    RecordListTooLargeError,
    ReplicaNotAvailableError,
    RequestTimedOutError,
    StaleControllerEpochError,
    StaleLeaderEpochCodeError,
    UnknownError,
    UnknownProducerId,
    UnsupportedForMessageFormatError,
    UnsupportedVersionError,
)

from shardline_common.kafka.answers import (
    Closed,
    Failure,
    GroupMaxSizeReached,
    InvalidRecord,
    ThrottlingQuotaExceeded,
    TransactionAbortable,
    Unreachable,
    UnsupportedCompressionType,
)
from shardline_common.kafka.options import KafkaOptions


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why Kafka refuses, and one thing to do.

    `permanent`: it refuses until that is done. `forbidden`: a right is missing.
    """

    reason: str
    hint: str | None
    permanent: bool = True
    forbidden: bool = False


_REPLICAS = Refusal(
    "the topic has fewer replicas in sync than min.insync.replicas (NotEnoughReplicas)",
    "start the missing brokers, or lower min.insync.replicas to the replicas that the topic has",
    permanent=False,
)
_TOO_LARGE = Refusal(
    "a message is over the topic's max.message.bytes (MessageSizeTooLarge)",
    "raise max.message.bytes of the topic, or message.max.bytes of the brokers",
)
_VERSION = Refusal(
    "the brokers' version of Kafka has no such request",
    "upgrade the brokers: docs/kafka.md names the version",
)
_TRANSACTIONS = Refusal(
    "no broker coordinates transactions (CoordinatorNotAvailable): __transaction_state cannot be created or "
    "written with the brokers' transaction.state.log.replication.factor and transaction.state.log.min.isr",
    "set both on the brokers to at most the number of brokers that run",
    permanent=False,
)
_GROUPS = Refusal(
    "no broker coordinates groups (CoordinatorNotAvailable): __consumer_offsets cannot be created or written "
    "with the brokers' offsets.topic.replication.factor",
    "set it on the brokers to at most the number of brokers that run",
    permanent=False,
)
_REFUSALS: dict[type[KafkaError], Refusal] = {
    NotEnoughReplicasError: _REPLICAS,
    NotEnoughReplicasAfterAppendError: _REPLICAS,
    MessageSizeTooLargeError: _TOO_LARGE,
    RecordListTooLargeError: _TOO_LARGE,
    UnsupportedVersionError: _VERSION,
    IncompatibleBrokerVersion: _VERSION,
    UnsupportedForMessageFormatError: _VERSION,
    PolicyViolationError: Refusal(
        "the brokers' create.topic.policy.class.name or alter.config.policy.class.name refuses it "
        "(PolicyViolation)",
        "allow it in that policy, or create the topics with the commands that "
        "`shardline doctor --print-topics` prints",
    ),
    InvalidConfigurationError: Refusal(
        "the brokers refuse a setting of the topic (InvalidConfiguration)",
        "compare the topic's settings in `shardline doctor --print-topics` with those of the brokers",
    ),
    InvalidPartitionsError: Refusal(
        "the brokers refuse this number of partitions (InvalidPartitions)", "lower `partitions` of the job"
    ),
    InvalidTopicError: Refusal(
        "the brokers refuse the name (InvalidTopic)", "shorten KAFKA_TOPIC_PREFIX or the job id"
    ),
    InvalidTimestampError: Refusal(
        "the clock of this machine is outside of the topic's message.timestamp.before.max.ms and "
        "message.timestamp.after.max.ms (InvalidTimestamp)",
        "set the clocks of this machine and of the brokers",
    ),
    InvalidRecord: Refusal(
        "the broker refuses the record (InvalidRecord)",
        "compare the topic's cleanup.policy and message.timestamp.type with those that "
        "`shardline doctor --print-topics` prints",
    ),
    GroupMaxSizeReached: Refusal(
        "the group has as many members as the brokers' group.max.size (GroupMaxSizeReached)",
        "raise group.max.size on the brokers, or run fewer processes",
    ),
    InconsistentGroupProtocolError: Refusal(
        "the group has members of another program (InconsistentGroupProtocol)",
        "set a KAFKA_TOPIC_PREFIX that no other program uses",
    ),
    InvalidGroupIdError: Refusal(
        "the brokers refuse the group's name (InvalidGroupId)", "check KAFKA_TOPIC_PREFIX"
    ),
    RequestTimedOutError: Refusal(
        "a broker did not answer in time (RequestTimedOut)", hint=None, permanent=False
    ),
    ThrottlingQuotaExceeded: Refusal(
        "the quota controller_mutation_rate is used up (ThrottlingQuotaExceeded)",
        "raise controller_mutation_rate of this user",
        permanent=False,
    ),
    LeaderNotAvailableError: Refusal(
        "a partition has no leader (LeaderNotAvailable)", "start the brokers that hold it", permanent=False
    ),
    KafkaStorageError: Refusal(
        "a broker cannot use its disk (KafkaStorageError)", "check log.dirs of that broker", permanent=False
    ),
    LogDirNotFound: Refusal(
        "a broker cannot use its disk (LogDirNotFound)", "check log.dirs of that broker", permanent=False
    ),
    ConcurrentTransactions: Refusal(
        "the last transaction of this id has not ended (ConcurrentTransactions)",
        "start the brokers that lead the topics of that transaction",
        permanent=False,
    ),
}
# A network that cuts connections does so now and then; a limit of the broker does so each time.
_CLOSED_OFTEN = 5
# After the first five a new producer, with a new sequence, goes on. The others come while a leader changes,
# or while a broker stops or starts. For aiokafka they are not retriable, but for Kafka they are.
_PASSING = (
    InvalidProducerIdMapping,
    InvalidTxnState,
    OutOfOrderSequenceNumber,
    TransactionAbortable,
    UnknownProducerId,
    BrokerNotAvailableError,
    CorruptRecordException,
    FetchSessionIdNotFound,
    InvalidFetchSessionEpoch,
    ListenerNotFound,
    ReassignmentInProgress,
    RebalanceInProgressError,
    ReplicaNotAvailableError,
    StaleControllerEpochError,
    # Kafka's NETWORK_EXCEPTION: the broker lost its connection to another broker.
    StaleLeaderEpochCodeError,
)


def refusal_of(error: Failure, options: KafkaOptions, *, transactional: bool = False) -> Refusal | None:
    """The meaning of an error; None for one that says nothing but that a request failed.

    `transactional`: the request was one of a transactional producer. The coordinators of transactions and
    of groups have the same error codes and other settings.
    """
    if isinstance(error, Unreachable | Closed):
        return _of_connection(error)
    if isinstance(error, GroupCoordinatorNotAvailableError):
        return _TRANSACTIONS if transactional else _GROUPS
    known = _REFUSALS.get(type(error)) or _of_setting(error, options)
    if known is not None:
        # The code's own description is known here; what a broker adds to it is not.
        said = "" if isinstance(error, MessageSizeTooLargeError) else _said(error)
        return Refusal(f"{known.reason}: {said}" if said else known.reason, known.hint, known.permanent)
    if isinstance(error, UnknownError):
        return Refusal(f"the broker answers with an unknown error ({error})", "see the brokers' log")
    if isinstance(error, BrokerResponseError):
        passing = error.retriable or isinstance(error, _PASSING)
        name = type(error).__name__.removesuffix("Error")
        return Refusal(f"{_sentence(error)} ({name})", "see the brokers' log", permanent=not passing)
    return None


def _of_connection(error: Unreachable | Closed) -> Refusal | None:
    if isinstance(error, Unreachable):
        return Refusal(
            f"broker {error.node} cannot be reached at {error.address}, the address that it advertises",
            f"start broker {error.node}, or set its advertised.listeners to an address that is reachable "
            "from here",
            permanent=False,
        )
    if error.count < _CLOSED_OFTEN:
        return None
    return Refusal(
        f"the broker closed the connection {error.count} times when it got a batch of {error.size} bytes, "
        "which may be over its socket.request.max.bytes",
        "raise socket.request.max.bytes of the brokers, or lower max_document_bytes of the job",
    )


def _of_setting(error: KafkaError, options: KafkaOptions) -> Refusal | None:
    """The refusals that name the value of a setting of Shardline."""
    if isinstance(error, InvalidTransactionTimeout):
        return Refusal(
            f"KAFKA_TRANSACTION_TIMEOUT_MS is {options.transaction_timeout_ms}, over the brokers' "
            "transaction.max.timeout.ms (InvalidTransactionTimeout)",
            "set KAFKA_TRANSACTION_TIMEOUT_MS to at most the brokers' transaction.max.timeout.ms",
        )
    if isinstance(error, UnsupportedCompressionType):
        return Refusal(
            f"the brokers do not support KAFKA_COMPRESSION={options.compression} "
            "(UnsupportedCompressionType)",
            "set KAFKA_COMPRESSION to none or to a codec that the brokers support",
        )
    if isinstance(error, InvalidReplicationFactorError):
        if options.replication_factor > 0:
            reason = f"KAFKA_REPLICATION_FACTOR is {options.replication_factor}, and fewer brokers run"
            hint = "set KAFKA_REPLICATION_FACTOR to at most the number of brokers"
        else:
            reason = "the brokers' default.replication.factor is over the number of brokers that run"
            hint = (
                "set KAFKA_REPLICATION_FACTOR to the number of brokers, or lower default.replication.factor"
            )
        return Refusal(f"{reason} (InvalidReplicationFactor)", hint)
    if isinstance(error, InvalidSessionTimeoutError):
        return Refusal(
            f"KAFKA_SESSION_TIMEOUT_MS is {options.session_timeout_ms}, outside of the brokers' "
            "group.min.session.timeout.ms and group.max.session.timeout.ms (InvalidSessionTimeout)",
            "set KAFKA_SESSION_TIMEOUT_MS to a value between these two",
        )
    return None


def _sentence(error: BrokerResponseError) -> str:
    said = _said(error) or str(error.description or error.message)
    return f"the broker refuses it: {said}".rstrip(".")


def _said(error: KafkaError) -> str:
    return str(error.args[0]).rstrip(".") if error.args and error.args[0] else ""
