"""Implements the broker port on Kafka: topics, writes outside transactions, and its writers and readers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import partial
from itertools import starmap

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MetadataEmptyBrokerList,
    SaslAuthenticationFailed,
    for_code,
)

from shardline_common.errors import BrokerRefused, BrokerUnavailable, TopicMissing
from shardline_common.kafka.acls import Right
from shardline_common.kafka.answers import Answers
from shardline_common.kafka.client_errors import Request, quiet_client_logs, translated
from shardline_common.kafka.client_internals import (
    abandon,
    advertised_addresses,
    client_of,
    connect_once,
)
from shardline_common.kafka.operations import Operations
from shardline_common.kafka.options import KafkaOptions
from shardline_common.kafka.patient_admin import PatientAdmin, partitions_of
from shardline_common.kafka.readers import open_group_reader
from shardline_common.kafka.tables import open_table_reader
from shardline_common.kafka.transaction_limits import STATE_TOPIC, transaction_fault
from shardline_common.kafka.writer import open_writer, stop_producer
from shardline_common.ports.broker import (
    GroupListener,
    GroupReader,
    Message,
    TableReader,
    TopicSpec,
    TransactionalWriter,
)
from shardline_common.runtime.tasks import close_shielded, start_shielded

_TOPIC_EXISTS, _UNKNOWN_TOPIC, _POLICY = 36, 3, 44
# Error codes: no right on the topic, no right on the cluster, refused by the policy of the cluster.
_NOT_ALLOWED = (29, 31, _POLICY)
_SETTLE_SECONDS = 30.0
# For so long most brokers must not know a topic, while others do not answer, until it does not exist.
_SURE_SECONDS, _LOOK_SECONDS = 3.0, 1.0


class KafkaBroker:
    """Implements `ports.broker.Broker` on a Kafka cluster. Clients start when they are first needed."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._operations = Operations(options)
        self._admin: PatientAdmin | None = None
        self._admin_answers = Answers(options.request_timeout_ms)
        self._producer: AIOKafkaProducer | None = None
        self._producer_answers = Answers(options.request_timeout_ms)
        # Two locks: a producer whose start hangs must not stop `check`.
        self._admin_starting, self._producer_starting = asyncio.Lock(), asyncio.Lock()

    def _name(self, topic: str) -> str:
        return self._options.prefix + topic

    def _run(self, what: str, topic: str = "", right: str = "Describe") -> AbstractContextManager[None]:
        """Run one call of the admin client, which needs this right on the topic."""
        return self._operations.run(Request(what, Right("topic", topic, right), self._admin_answers))

    def failing(self, seconds: float) -> str | None:
        """The operation that Kafka refuses or does not answer for this many seconds, and why; or None."""
        return self._operations.failing(seconds)

    def failing_seconds(self) -> float:
        """For how long the operation that fails longest has been failing; 0 when none does."""
        return self._operations.failing_seconds()

    async def close(self) -> None:
        """Close the clients that were started."""
        try:
            await self._drop_producer()
        finally:
            await self._drop_admin()

    async def _started_admin(self) -> PatientAdmin:
        async with self._admin_starting:
            if self._admin is None:
                admin = PatientAdmin(**self._options.client())
                self._operations.watch(client_of(admin), self._admin_answers)
                try:
                    await start_shielded(admin.start)
                except MetadataEmptyBrokerList as error:
                    await close_shielded(admin.close)
                    if self._options.sasl_mechanism == "OAUTHBEARER":
                        # A client whose token was refused gets answers, but none of them lists a broker.
                        raise SaslAuthenticationFailed("the token is refused") from error
                    raise
                except KafkaConnectionError:
                    await close_shielded(admin.close)
                    if self._options.tokens is not None:
                        # It raises why there is no token, which the client does not report.
                        await self._options.tokens.current()
                    raise
                except BaseException:
                    await close_shielded(admin.close)
                    raise
                self._admin = admin
        return self._admin

    async def _drop_admin(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await close_shielded(admin.close)

    async def check(self) -> None:
        """Ask the cluster for its metadata."""
        with self._run("Kafka does not answer"):
            try:
                async with asyncio.timeout(self._options.request_timeout_ms / 1000):
                    await (await self._started_admin()).check()
            except Exception:
                # No broker answers. A new client has the certificates and addresses of now.
                await self._drop_admin()
                raise

    async def check_listeners(self) -> list[str]:
        """Connect to each broker at the address that it advertises. Returns these addresses.

        Raises:
            BrokerUnavailable: one of them does not answer, or its TLS or credentials fail.
        """
        with self._run("the brokers cannot be listed"):
            async with asyncio.timeout(self._options.request_timeout_ms / 1000):
                brokers = advertised_addresses(await self._started_admin())
        failed = [one for one in await asyncio.gather(*starmap(self._connection_error, brokers)) if one]
        if failed:
            raise BrokerUnavailable(
                f"not reachable at the address that the broker advertises: {'; '.join(failed)}",
                hint="start these brokers, or set their advertised.listeners to addresses that are reachable "
                "from here",
            )
        return [f"{host}:{port}" for _, host, port in brokers]

    async def _connection_error(self, node: int, host: str, port: int) -> str | None:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        where = f"broker {node} at {address}"
        try:
            with translated(Request(where), self._options):
                async with asyncio.timeout(self._options.request_timeout_ms / 1000):
                    await connect_once(**self._options.client() | {"bootstrap_servers": address})
        except BrokerUnavailable as error:
            return str(error)
        return None

    async def auto_creates_topics(self) -> bool | None:
        """Whether brokers create a missing topic that a client requests (auto.create.topics.enable).

        None: this client has no right to read the setting (DescribeConfigs on the cluster).
        """
        settings = await self._settings()
        return None if settings is None else settings.get("auto.create.topics.enable") == "true"

    async def check_transactions(self) -> None:
        """Raise BrokerRefused if settings of the brokers, as far as they may be read, refuse transactions."""
        if (settings := await self._settings()) is None:
            return
        admin, timeout_ms = await self._started_admin(), self._options.transaction_timeout_ms
        with self._run("the topics cannot be listed"):
            made = STATE_TOPIC in await admin.list_topics()
        brokers = len(advertised_addresses(admin))
        if (fault := transaction_fault(settings, brokers, made=made, timeout_ms=timeout_ms)) is not None:
            raise fault

    async def _settings(self) -> dict[str, str | None] | None:
        with self._run("the brokers cannot be described"):
            resource = partial(ConfigResource, ConfigResourceType.BROKER)
            responses = await (await self._started_admin()).broker_settings(resource)
        code, _message, _kind, _name, entries = responses[0].resources[0]
        return None if code else {entry[0]: entry[1] for entry in entries}

    async def create_topic(self, spec: TopicSpec) -> bool:
        """Create the topic; False when it exists."""
        topic = NewTopic(self._name(spec.name), spec.partitions, 1, topic_configs=dict(spec.config))
        # The constructor refuses -1, which selects the broker's default.
        topic.replication_factor = self._options.replication_factor
        with self._run(f"the topic {topic.name} cannot be created", topic.name, "Create"):
            response = await (await self._started_admin()).create_topics([topic])
            for _, code, *message in response.topic_errors:
                if code in _NOT_ALLOWED:
                    return await self._handle_denied_create(topic.name, for_code(code)(*message))
                if code and code != _TOPIC_EXISTS:
                    raise for_code(code)(*message)
        created = all(code != _TOPIC_EXISTS for _, code, *_message in response.topic_errors)
        # A topic that another process created a moment ago may have another number of partitions.
        await self._wait_for_partitions(
            topic.name, (lambda found: found == spec.partitions) if created else bool
        )
        return created

    async def _handle_denied_create(self, name: str, error: KafkaError) -> bool:
        # Kafka checks rights before existence: the error is the same for a topic that exists.
        if await self._partitions(name):
            return False
        if error.errno == _POLICY:
            raise error
        raise BrokerRefused(
            f"the topic {name} does not exist, and this client has no right to create it "
            f"({type(error).__name__})",
            hint="create it with the commands that `shardline doctor --print-topics` prints",
        ) from error

    async def _wait_for_partitions(self, name: str, wanted: Callable[[int], bool]) -> None:
        # The metadata of a created or deleted topic reaches all brokers with a delay.
        deadline = asyncio.get_running_loop().time() + _SETTLE_SECONDS
        while not wanted(await self._partitions_by_now(name)):
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerUnavailable(
                    f"after {_SETTLE_SECONDS:.0f} s the brokers still disagree about the topic {name}"
                )
            await asyncio.sleep(0.05)

    async def _partitions_by_now(self, name: str) -> int:
        """The partitions with a leader, according to the broker that knows most."""
        with self._looking_for(name):
            found = (await (await self._started_admin()).look_for(name)).metadata
            return len([one for one in partitions_of(found) if one["leader"] >= 0])

    async def partitions(self, name: str) -> int:
        """The number of partitions; 0 when the topic does not exist."""
        return await self._partitions(self._name(name))

    async def _partitions(self, name: str) -> int:
        """The number of partitions, from any broker that knows the topic.

        It does not exist when every broker says so, or when most of them say so for some seconds: one that
        continues after a pause does not know the topics that were created during the pause.
        """
        started, looks = asyncio.get_running_loop().time(), 0
        with self._looking_for(name):
            while True:
                looks += 1
                view = await (await self._started_admin()).look_for(name)
                partitions = partitions_of(view.metadata)
                if partitions or view.answered >= view.listed:
                    return len(partitions)
                if looks > 1 and asyncio.get_running_loop().time() - started >= _SURE_SECONDS:
                    if 2 * view.answered > view.listed:
                        return 0
                    raise BrokerUnavailable(
                        f"{view.answered} of {view.listed} brokers answer, and do not know the topic {name}",
                        hint="start the other brokers",
                    )
                await asyncio.sleep(_LOOK_SECONDS)

    def _looking_for(self, name: str) -> AbstractContextManager[None]:
        return self._run(f"the topic {name} cannot be described", name)

    async def topics(self) -> list[str]:
        """The names of all topics under the prefix."""
        prefix = self._options.prefix
        with self._run("the topics cannot be listed"):
            names = await (await self._started_admin()).list_topics()
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    async def describe_topic(self, name: str) -> TopicSpec | None:
        """Partitions and full configuration, or None."""
        full = self._name(name)
        partitions = await self._partitions(full)
        if not partitions:
            return None
        with self._run(f"the settings of the topic {full} cannot be described", full, "DescribeConfigs"):
            admin = await self._started_admin()
            responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, full)])
            code, message, _kind, _name, entries = responses[0].resources[0]
            if code == _UNKNOWN_TOPIC:
                return None
            if code:
                raise for_code(code)(message)
        return TopicSpec(name, partitions, {entry[0]: entry[1] or "" for entry in entries})

    async def delete_topic(self, name: str) -> bool:
        """Delete the topic and wait until no broker lists it. False when it did not exist."""
        full = self._name(name)
        with self._run(f"the topic {full} cannot be deleted", full, "Delete"):
            response = await (await self._started_admin()).delete_topics([full])
            for _, code, *_rest in response.topic_error_codes:
                if code == _UNKNOWN_TOPIC:
                    return False
                if code:
                    raise for_code(code)
        await self._wait_for_partitions(full, lambda found: not found)
        return True

    async def delete_records(self, name: str, before: Mapping[int, int]) -> None:
        """Delete records below the offsets. Deleted records are no error."""
        full = self._name(name)
        wanted = {TopicPartition(full, number): RecordsToDelete(offset) for number, offset in before.items()}
        with self._run(f"records of {full} cannot be deleted", full, "Delete"):
            if not await self._partitions(full):
                raise TopicMissing(f"the topic {full} does not exist")
            await (await self._started_admin()).delete_records(wanted)

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Write outside of transactions; returns when every message is delivered."""
        full = self._name(topic)
        right = Right("topic", full, "Write")
        with self._operations.run(Request(f"{full} cannot be written", right, self._producer_answers)):
            producer = await self._started_producer()
            try:
                async with asyncio.timeout(2 * self._options.request_timeout_ms / 1000):
                    sent = [
                        await producer.send(
                            full, item.value, item.key, item.partition, headers=list(item.headers)
                        )
                        for item in messages
                    ]
                    await asyncio.gather(*sent)
            except Exception:
                # An idempotent producer that failed once may have lost its sequence numbers.
                await self._abandon(producer)
                raise

    async def _started_producer(self) -> AIOKafkaProducer:
        async with self._producer_starting:
            if self._producer is None:
                producer = self._options.producer()
                self._operations.watch(producer.client, self._producer_answers)
                try:
                    # The client asks for its id without an end.
                    async with asyncio.timeout(self._options.request_timeout_ms / 1000):
                        await start_shielded(producer.start)
                except BaseException:
                    await stop_producer(producer)
                    raise
                self._producer = producer
        return self._producer

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_producer(producer)

    async def _abandon(self, producer: AIOKafkaProducer) -> None:
        # Calls that failed together have used the same producer. Another call may have started the next one.
        if self._producer is producer:
            self._producer = None
            # To stop it would wait for the batches that Kafka refuses.
            await close_shielded(lambda: abandon(producer))

    def transactional(self, transactional_id: str) -> AbstractAsyncContextManager[TransactionalWriter]:
        """Open a writer that fences the earlier ones of its id."""
        return open_writer(self._operations, self._name(transactional_id))

    @asynccontextmanager
    async def group_reader(
        self, topic: str, group: str, listener: GroupListener
    ) -> AsyncIterator[GroupReader]:
        """Join the group for the topic."""
        await self._existing_partitions(topic)
        full, named = self._name(topic), self._name(group)
        async with open_group_reader(self._operations, full, named, listener) as reader:
            yield reader

    @asynccontextmanager
    async def table_reader(
        self, topic: str, partitions: Sequence[int] | None = None
    ) -> AsyncIterator[TableReader]:
        """Read partitions from their beginning."""
        numbers = range(await self._existing_partitions(topic)) if partitions is None else partitions
        async with open_table_reader(self._operations, self._name(topic), numbers) as reader:
            yield reader

    async def _existing_partitions(self, topic: str) -> int:
        partitions = await self._partitions(self._name(topic))
        if not partitions:
            raise TopicMissing(f"the topic {self._name(topic)} does not exist")
        return partitions


@asynccontextmanager
async def open_kafka(options: KafkaOptions) -> AsyncIterator[KafkaBroker]:
    """A broker on a Kafka cluster; leaving the context closes its clients.

    Raises:
        UsageError: the options do not fit together.
    """
    options.check()
    quiet_client_logs()
    broker = KafkaBroker(options)
    try:
        yield broker
    finally:
        await broker.close()
