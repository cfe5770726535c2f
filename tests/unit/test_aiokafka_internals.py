"""The private parts of aiokafka that kafka/client_internals.py uses are where it expects them."""

import inspect
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.consumer.fetcher import Fetcher, FetchResult, OffsetResetStrategy, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment, Subscription, TopicPartitionState
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.sender import Sender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_common.kafka.client_internals import JoinedProduceRequest
from shardline_common.kafka.listed_records import ListedRecords
from shardline_common.kafka.patient_admin import PatientAdmin
from shardline_common.kafka.patient_client import PatientClient

OVERRIDDEN: dict[type, set[str]] = {
    PatientClient: {
        *("bootstrap", "get_random_node", "coordinator_lookup", "force_metadata_update", "send", "close"),
        *("_get_conn", "_metadata_update"),
    },
    PatientAdmin: {"_send_request", "_send_to_controller"},
    ListedRecords: {"__next__", "_consumer_record"},
}
PYPROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        (AIOKafkaAdminClient, {"_client"}),
        (AIOKafkaConsumer, {"_client", "_coordinator", "_fetcher", "_subscription"}),
        (AIOKafkaProducer, {"client", "_closed", "_sender", "_message_accumulator", "_txn_manager"}),
        (AIOKafkaClient, {"cluster", "_request_timeout_ms"}),
        (Fetcher, {"_records"}),
        (FetchResult, {"_partition_records"}),
        (PartitionRecords, {"_tp", "_records", "_records_iterator", "next_fetch_offset"}),
        (AIOKafkaConnection, {"_requests", "_writer"}),
        (ClusterMetadata, {"_partitions"}),
        (GroupCoordinator, {"coordinator_id", "generation", "group_id"}),
    ],
)
def test_attributes_are_set_by_the_constructor(kind: type, attributes: set[str]) -> None:
    assigned = set(re.findall(r"self\.(\w+)\b[^=\n]*=", inspect.getsource(kind.__init__)))  # type: ignore[misc]
    assert attributes <= assigned, attributes - assigned


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        (AIOKafkaAdminClient._send_request, ["self", "request", "node_id"]),
        (GroupCoordinator._do_commit_offsets, ["self", "assignment", "offsets"]),
        (GroupCoordinator.check_errors, ["self"]),
        (Assignment.state_value, ["self", "tp"]),
        (PartitionRecords._unpack_records, ["self"]),
        (PartitionRecords._consumer_record, ["self", "tp", "record"]),
        (TopicPartitionState.await_reset, ["self", "strategy"]),
        (AIOKafkaClient._md_synchronizer, ["self"]),
        (AIOKafkaClient._on_connection_closed, ["self", "conn", "reason"]),
        (MessageAccumulator.fail_all, ["self", "exception"]),
        (TransactionManager.wait_for_transaction_end, ["self"]),
        (ClusterMetadata.leader_for_partition, ["self", "partition"]),
        (ClusterMetadata.brokers, ["self"]),
        (collect_hosts, ["hosts", "randomize"]),
    ],
)
def test_calls_have_these_parameters(call: Callable[..., Any], parameters: list[str]) -> None:
    assert list(inspect.signature(call).parameters) == parameters


@pytest.mark.parametrize("kind", [PatientClient, PatientAdmin, ListedRecords])
def test_a_subclass_overrides_what_is_there(kind: type) -> None:
    own, base = vars(kind), vars(kind.__mro__[1])
    for name in own.keys() & base.keys() - {"__doc__", "__module__"}:
        given, wanted = inspect.signature(own[name]).parameters, inspect.signature(base[name]).parameters
        # It may take more than the base class, but nothing less.
        assert list(given)[: len(wanted)] == list(wanted), name
    assert own.keys() & base.keys() >= OVERRIDDEN[kind]


def test_the_subclass_of_the_client_uses_attributes_that_are_there() -> None:
    text = inspect.getsource(PatientClient)
    used = set(re.findall(r"self\.(_\w+)", text))
    own = set(re.findall(r"self\.(_\w+)(?:: [^=\n]+)? = ", inspect.getsource(PatientClient.prepare)))
    base = set(re.findall(r"self\.(_\w+)\b[^=\n]*=", inspect.getsource(AIOKafkaClient.__init__)))
    assert used - own - base <= vars(PatientClient).keys() | vars(AIOKafkaClient).keys()


def test_other_names_are_there() -> None:
    assert {"host", "port"} <= set(inspect.signature(create_conn).parameters)
    assert isinstance(inspect.getattr_static(Sender, "sender_task"), property)
    assert "assignment" in dir(Subscription)
    assert OffsetResetStrategy.EARLIEST
    assert "allow_auto_topic_creation" in inspect.signature(MetadataRequest).parameters


def test_fetched_records_are_kept_in_a_dict_of_one_type() -> None:
    # The results of a consumer are turned into lists as they are kept.
    source = inspect.getsource(Fetcher)
    assert "self._records[tp] = FetchResult(" in source
    assert "type(res_or_error) is FetchResult" in source
    assert "for msg in self._partition_records:" in inspect.getsource(FetchResult.getall)


def test_later_minor_versions_are_excluded() -> None:
    wanted = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    (requirement,) = (one for one in wanted if one.startswith("aiokafka"))
    major, minor = version("aiokafka").split(".")[:2]
    assert requirement == f"aiokafka[zstd,lz4]>={major}.{minor},<{major}.{int(minor) + 1}"


_batches = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.binary(max_size=50).map(bytearray)), max_size=4)


@settings(max_examples=30)
@given(
    name=st.none() | st.text(max_size=10),
    acks=st.sampled_from([-1, 0, 1]),
    topics=st.lists(st.tuples(st.text(max_size=10), _batches), max_size=4),
    newest=st.integers(3, 9),
)
def test_a_joined_produce_request_has_the_bytes_of_the_client(
    name: str | None, acks: int, topics: list[Any], newest: int
) -> None:
    plain = ProduceRequest(name, acks, 30_000, topics)
    versions = {ProduceRequest.API_KEY: (0, newest)}
    joined = JoinedProduceRequest(plain).prepare(versions)
    assert joined.encode() == plain.prepare(versions).encode()
    assert type(joined) is type(plain.prepare(versions))
