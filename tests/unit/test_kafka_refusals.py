"""Every error of Kafka becomes a sentence with a remedy; a closed list says which of them last."""

import asyncio
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition, errors
from aiokafka.codec import has_zstd
from aiokafka.errors import BrokerResponseError, KafkaError, kafka_errors

from shardline_common.errors import BrokerRefused, BrokerUnavailable, Fenced, TopicMissing, UsageError
from shardline_common.kafka.acls import Right
from shardline_common.kafka.answers import Answers, Unreachable, UnsupportedCompressionType
from shardline_common.kafka.client_errors import Request, translated
from shardline_common.kafka.consumers import ReadWatch
from shardline_common.kafka.operations import Operations
from shardline_common.kafka.options import KafkaOptions

OPTIONS = KafkaOptions("kafka:9092", sasl_username="alice", compression="zstd", request_timeout_ms=1000)
SPECIAL = {
    errors.InvalidProducerEpoch: Fenced,
    errors.TransactionCoordinatorFenced: Fenced,
    errors.UnknownTopicOrPartitionError: TopicMissing,
}
# These end by themselves, or with the return of a broker. All others last until somebody acts.
PASSING = {
    *(errors.LeaderNotAvailableError, errors.NotLeaderForPartitionError, errors.RequestTimedOutError),
    *(errors.GroupLoadInProgressError, errors.GroupCoordinatorNotAvailableError),
    *(errors.NotCoordinatorForGroupError, errors.NotEnoughReplicasError),
    *(errors.NotEnoughReplicasAfterAppendError, errors.NotControllerError, errors.KafkaStorageError),
    *(errors.LogDirNotFound, errors.ConcurrentTransactions, errors.OutOfOrderSequenceNumber),
    *(errors.UnknownProducerId, errors.InvalidProducerIdMapping, errors.InvalidTxnState, kafka_errors[89]),
    # Kafka's own list of errors after which a client tries again, as far as it has not been named yet.
    *(kafka_errors[code] for code in (2, 9, 13, 70, 71, 72, 74, 75, 78, 80, 83, 88, 100, 103, 106)),
    # A broker or a controller that is about to stop or has just started, a group or a partition that changes.
    *(kafka_errors[code] for code in (8, 11, 27, 60, 120)),
}


def failure(error: Exception, request: Request, options: KafkaOptions = OPTIONS) -> BrokerUnavailable:
    with pytest.raises(BrokerUnavailable) as raised, translated(request, options):
        raise error
    return raised.value


@pytest.mark.parametrize(
    "kind", [kind for code, kind in kafka_errors.items() if code], ids=lambda k: k.__name__
)
def test_every_error_code_is_a_sentence_with_a_remedy(kind: type[BrokerResponseError]) -> None:
    found = failure(kind(), Request("it cannot be done", transactional=True))
    assert str(found).startswith(("it cannot be done: ", "a newer producer took over"))
    if kind in SPECIAL:
        assert type(found) is SPECIAL[kind]
    else:
        assert type(found) is (BrokerUnavailable if kind in PASSING else BrokerRefused)
        assert found.hint


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (errors.InvalidTransactionTimeout(), "60000, over the brokers' transaction.max.timeout.ms"),
        (errors.InvalidSessionTimeoutError(), "group.max.session.timeout.ms"),
        (errors.InvalidReplicationFactorError(), "default.replication.factor"),
        (errors.NotEnoughReplicasError(), "min.insync.replicas"),
        (errors.MessageSizeTooLargeError(), "max.message.bytes"),
        (errors.PolicyViolationError("names need a team"), "names need a team"),
        (errors.GroupCoordinatorNotAvailableError(), "transaction.state.log.min.isr"),
        (UnsupportedCompressionType(), "KAFKA_COMPRESSION=zstd"),
        (kafka_errors[81](), "group.max.size"),
        (errors.IncompatibleBrokerVersion("no Produce v3"), "the brokers' version of Kafka"),
        (NotImplementedError("no Produce v3"), "the brokers' version of Kafka"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_setting_of_the_brokers_is_named(error: Exception, named: str) -> None:
    assert named in str(failure(error, Request("it cannot be done", transactional=True)))


@pytest.mark.parametrize(
    ("error", "right", "words"),
    [
        (
            errors.TopicAuthorizationFailedError({"dataset.events"}),
            Right("topic", "", "Write"),
            "--operation Write --topic dataset.events",
        ),
        (
            errors.TopicAuthorizationFailedError("the broker says no"),
            Right("topic", "dataset.jobs", "Read"),
            "--operation Read --topic dataset.jobs",
        ),
        (errors.GroupAuthorizationFailedError("dataset.producers"), None, "Read --group dataset.producers"),
        (
            errors.TransactionalIdAuthorizationFailed("dataset.producer.a"),
            None,
            "--transactional-id dataset.p",
        ),
        (errors.ClusterAuthorizationFailedError(), None, "--operation IdempotentWrite --cluster"),
    ],
)
def test_the_command_that_adds_a_missing_right_is_given(
    error: KafkaError, right: Right | None, words: str
) -> None:
    found = failure(error, Request("it cannot be done", right))
    assert isinstance(found, BrokerRefused)
    assert re.search(r"kafka-acls\.sh .*--add --allow-principal User:alice", found.hint or "")
    assert words in (found.hint or "")


async def test_a_time_out_is_explained_by_the_last_answer() -> None:
    answers = Answers(1000)
    request = Request("it cannot be done", None, answers)
    assert "TimeoutError" in str(failure(TimeoutError(), request))
    answers.failed("connect", 2, Unreachable(2, "away:9092"))
    assert "broker 2 cannot be reached at away:9092" in str(failure(TimeoutError(), request))
    # One of several brokers may be down: what another answered says more.
    answers.failed("JoinGroup", 1, kafka_errors[81]())
    assert "group.max.size" in str(failure(KafkaError("UnknownError()"), request))
    answers.succeeded("JoinGroup", 3)
    answers.succeeded("connect", 2)
    assert "TimeoutError" in str(failure(TimeoutError(), request))


async def test_a_connection_closed_at_each_batch_is_a_limit() -> None:
    answers = Answers(1000)
    request = Request("it cannot be done", None, answers)
    for _ in range(4):
        answers.closed(1, 5_000_000)
    # A broker that restarts closes connections, and then refuses them.
    answers.unreachable(1, "here:9092")
    answers.succeeded("connect", 1)
    for _ in range(4):
        answers.closed(1, 5_000_000)
        assert "TimeoutError" in str(failure(TimeoutError(), request))
    answers.closed(1, 5_000_000)
    found = failure(TimeoutError(), request)
    assert isinstance(found, BrokerRefused)
    assert "5 times when it got a batch of 5000000 bytes" in str(found)
    answers.succeeded("Produce", 1)
    assert "TimeoutError" in str(failure(TimeoutError(), request))


async def test_an_old_answer_explains_nothing() -> None:
    answers = Answers(request_timeout_ms=1)
    answers.failed("Produce", 1, errors.NotEnoughReplicasError())
    while answers.last is not None:
        await asyncio.sleep(0.001)


async def test_an_operation_fails_until_it_succeeds() -> None:
    operations, request = Operations(OPTIONS), Request("it cannot be done")
    for _ in range(2):
        with pytest.raises(BrokerUnavailable), operations.run(request):
            raise TimeoutError
    assert "it cannot be done (TimeoutError)" in (operations.failing(0.0) or "")
    assert operations.failing(60.0) is None
    with operations.run(request):
        assert "it cannot be done" in (operations.failing(0.0) or "")
    assert operations.failing(0.0) is None


async def test_an_answer_of_kafka_is_no_failure_of_kafka() -> None:
    operations, request = Operations(OPTIONS), Request("it cannot be done")
    for error in (errors.ProducerFenced(), errors.UnknownTopicOrPartitionError()):
        with pytest.raises(BrokerUnavailable), operations.run(request):
            raise error
        assert operations.failing(0.0) is None


async def test_an_operation_that_hangs_counts_as_failing() -> None:
    operations, answers = Operations(OPTIONS), Answers(1000)
    wait = operations.wait(Request("the group g cannot be joined", None, answers))
    wait.begin()
    assert operations.failing(0.0) == (
        "failing for less than 0.1 s: the group g cannot be joined: Kafka has not answered yet"
    )
    answers.failed("FindCoordinator", 1, errors.GroupCoordinatorNotAvailableError())
    assert "offsets.topic.replication.factor" in (operations.failing(0.0) or "")
    wait.end()
    assert operations.failing(0.0) is None


async def test_a_wait_counts_as_long_as_one_that_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    operations = Operations(OPTIONS)
    wait = operations.wait(Request("the group g cannot be joined"))
    wait.begin()
    assert operations.failing_seconds() == 0.0
    monkeypatch.setattr("shardline_common.kafka.operations.LOG_SECONDS", 0.0)
    while not operations.failing_seconds():
        await asyncio.sleep(0)
    wait.succeed()
    assert operations.failing_seconds() == 0.0


async def test_a_reader_does_not_fail_by_a_broker_that_it_asks_no_more() -> None:
    operations, answers, leader = Operations(OPTIONS), Answers(1000), {TopicPartition("t", 0): 1}
    cluster = SimpleNamespace(leader_for_partition=leader.get)
    consumer = SimpleNamespace(
        _client=SimpleNamespace(cluster=cluster), _coordinator=None, assignment=lambda: set(leader)
    )
    watch = ReadWatch(operations, consumer, answers, Request("t cannot be read", None, answers))
    answers.failed("Fetch", 1, errors.NotLeaderForPartitionError())
    answers.unreachable(1, "one:9092")
    answers.unreachable(3, "three:9092")
    watch.check()
    assert "t cannot be read" in (operations.failing(0.0) or "")
    leader[TopicPartition("t", 0)] = 2
    watch.check()
    assert operations.failing(0.0) is None
    watch.end()


async def test_a_failure_that_nobody_repeats_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardline_common.kafka.operations._FORGET_SECONDS", -1.0)
    operations = Operations(OPTIONS)
    with pytest.raises(BrokerUnavailable), operations.run(Request("it cannot be done")):
        raise TimeoutError
    assert operations.failing(0.0) is None


def test_a_codec_without_a_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_zstd()
    OPTIONS.check()
    monkeypatch.setattr("shardline_common.kafka.options._CODECS", {"zstd": lambda: False})
    with pytest.raises(UsageError, match="KAFKA_COMPRESSION is zstd"):
        replace(OPTIONS, prefix="x.").check()
