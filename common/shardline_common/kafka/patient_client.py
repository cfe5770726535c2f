"""The clients of aiokafka for a cluster of which a broker may be dead, frozen or behind.

aiokafka asks one broker after the other for a whole request time-out each, a random one for a coordinator
or a topic, and learns that a broker is gone only when a request to it has failed. docs/reliability.md says
what is done instead. tests/unit/test_aiokafka_internals.py fails where a later aiokafka has moved a part.
"""
# ruff: noqa: SLF001 - connections have no public calls for these things

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import CloseReason, collect_hosts, create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    MetadataEmptyBrokerList,
    NodeNotReadyError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest

from shardline_common.kafka.answers import Answers, walk_error_codes
from shardline_common.kafka.asking import UNREACHED, Answered, SilentBrokers, ask_in_turn
from shardline_common.kafka.checksums import check_fetched
from shardline_common.kafka.client_internals import JoinedProduceRequest

_log = logging.getLogger(__name__)
_CONNECT_SECONDS = 10.0
# For requests that a broker answers at once: it waits for no data, no member of a group and no controller.
_QUICK_SECONDS = 10.0
_QUICK = frozenset(
    {
        "AddPartitionsToTxn",
        "DescribeConfigs",
        "FindCoordinator",
        "Heartbeat",
        "InitProducerId",
        "LeaveGroup",
        "Metadata",
        "Offset",
        "OffsetCommit",
        "OffsetFetch",
    }
)
# A broker that has not answered after this time is asked after the others.
_SLOW_SECONDS = 0.8
# A request that gets no answer refreshes the metadata this often.
_REFRESH_SECONDS = 3.0
# After so many updates of the metadata, each of them soon after the last one, there is a pause before each.
_RAPID_UPDATES, _UPDATE_SECONDS = 5, 0.2
_CLOSE_SECONDS = 2.0
# The codes of an answer that another broker may give better: a topic, a coordinator or a controller that this
# one does not know. A broker that continues after a pause answers from what it knew before.
_ELSEWHERE = frozenset({3, 14, 15, 41})


class PatientClient(AIOKafkaClient):  # type: ignore[misc]  # aiokafka is untyped
    """The connections of one client. `watch_answers` turns the client of a producer or consumer into one.

    1. What any broker can answer is asked of the next one after a second. See `ask_in_turn`.
    2. A connection is made within a third of the time-out of requests, and holds up no connection to another
       broker. What a broker answers at once has the same time.
    3. A request that is silent for 3 seconds refreshes the metadata. The connection to a broker that the
       cluster no longer lists is closed, which fails the requests that wait for its answer.
    4. Refusals are recorded in `answers`, because aiokafka repeats many requests without telling why.
    5. Nothing connects after the end of the client.
    """

    def prepare(self, answers: Answers, silent: SilentBrokers) -> None:
        """Set what a constructor would set."""
        self._answers = answers
        self._silent = silent
        self._connecting: dict[Any, asyncio.Task[Any]] = {}
        self._ended = False
        self._rapid = 0
        self._updated_at = 0.0

    # Which broker is asked.

    async def bootstrap(self) -> None:
        """Read the first metadata, from any of the bootstrap servers."""
        metadata = (await ask_in_turn(self._servers(MetadataRequest([])), lambda found: found.brokers)).best()
        if not metadata.brokers:
            raise MetadataEmptyBrokerList("the bootstrap server lists no broker")
        if self._ended:
            raise KafkaConnectionError("the client was closed while it started")
        self.cluster.update_metadata(metadata)
        # A client bootstraps once, when it starts.
        self._sync_task: asyncio.Task[None] | None = asyncio.create_task(self._md_synchronizer())

    def _servers(self, request: Any) -> list[Callable[[], Awaitable[Any]]]:
        hosts = [((host, port), host, port) for host, port, _ in collect_hosts(self._bootstrap_servers)]
        return [partial(self._ask_server, *where, request) for where in self._silent.in_order(hosts)]

    async def _ask_server(self, host: str, port: int, request: Any) -> Any:
        connection, slow = None, self._loop.call_later(_SLOW_SECONDS, self._silent.silent, host, port)
        try:
            async with asyncio.timeout(self._part_of_time_out(_CONNECT_SECONDS)):
                connection = await self._connect(host, port)
                answer = await connection.send(request)
        except UNREACHED as error:
            self._silent.silent(host, port)
            raise KafkaConnectionError(f"no answer from {host}:{port} ({error!r})") from error
        except OSError:
            self._silent.silent(host, port)
            raise
        finally:
            slow.cancel()
            if connection is not None:
                connection.close()
        self._silent.answered(host, port)
        return answer

    def nodes(self) -> list[Any]:
        """The nodes that the cluster lists. Those that did not answer lately are last."""
        return self._silent.in_order((one.nodeId, one.host, one.port) for one in self.cluster.brokers())

    def get_random_node(self) -> Any:
        """A node for a request that any broker can answer."""
        nodes = self.nodes()
        return nodes[0] if nodes else None

    async def ask(self, request: Any, patience: float | None = None) -> Answered[Any]:
        """Ask the nodes in turn, until one knows the answer."""
        return await ask_in_turn(
            [partial(self.send, node, request) for node in self.nodes()], _is_final, patience
        )

    async def coordinator_lookup(self, coordinator_type: int, coordinator_key: str) -> Any:
        """The node that coordinates a group or a transactional id."""
        request = FindCoordinatorRequest(coordinator_key, coordinator_type)
        try:
            answer = (await self.ask(request)).best()
        except (*UNREACHED, OSError) as error:
            # The callers go on after this error. The error of a connection would end a producer.
            raise NodeNotReadyError("no broker says where the coordinator is") from error
        if answer.error_code:
            kind = for_code(answer.error_code)
            raise kind
        return answer.coordinator_id

    async def _metadata_update(self, cluster_metadata: Any, topics: Any) -> bool:
        await self._pause_between_updates()
        # A broker with auto.create.topics.enable would create a deleted topic again.
        request = MetadataRequest(list(topics) if topics else None, allow_auto_topic_creation=False)
        try:
            found = await self.ask(request)
            if found.good is None and not found.others:
                # All brokers may have other addresses by now.
                found = await ask_in_turn(self._servers(request))
            metadata = found.best()
        except Exception as error:  # noqa: BLE001 - it would end the task that refreshes the metadata
            _log.warning("no broker gives metadata: %r", error)
            cluster_metadata.failed_update(None)
            return False
        if not metadata.brokers:
            return False
        cluster_metadata.update_metadata(metadata)
        if cluster_metadata is self.cluster:
            self._after_update()
        return True

    async def _pause_between_updates(self) -> None:
        # For a partition without a leader or a topic that is gone, aiokafka refreshes without a pause.
        now = self._loop.time()
        self._rapid = self._rapid + 1 if now - self._updated_at < _UPDATE_SECONDS else 0
        if self._rapid > _RAPID_UPDATES:
            await asyncio.sleep(_UPDATE_SECONDS)
        self._updated_at = self._loop.time()

    def _after_update(self) -> None:
        listed = {one.nodeId for one in self.cluster.brokers()}
        self._answers.forget_brokers(listed)
        for (node, _), connection in tuple(self._conns.items()):
            if node not in listed:
                connection.close()
        for (node, _), task in tuple(self._connecting.items()):
            if node not in listed:
                task.cancel()
        known = (self.cluster._partitions.get(topic, {}).values() for topic in self._topics)
        if any(partition.leader == -1 for partitions in known for partition in partitions):
            self._answers.failed("Leader", None, LeaderNotAvailableError())
        else:
            self._answers.succeeded("Leader", None)

    def force_metadata_update(self) -> Any:
        """Refresh the metadata. After the end of the client nothing would."""
        if not self._ended:
            return super().force_metadata_update()
        ended = self._loop.create_future()
        ended.set_result(False)
        return ended

    # Connections.

    def _part_of_time_out(self, seconds: float) -> float:
        # A third of KAFKA_REQUEST_TIMEOUT_MS where it was raised, for a network or quotas that are slow.
        whole = float(self._request_timeout_ms) / 1000
        return max(whole / 3, min(seconds, whole))

    async def _connect(self, host: str, port: int, **more: Any) -> Any:
        return await create_conn(
            host,
            port,
            client_id=self._client_id,
            request_timeout_ms=self._request_timeout_ms,
            ssl_context=self._ssl_context,
            security_protocol=self._security_protocol,
            max_idle_ms=self._connections_max_idle_ms,
            sasl_mechanism=self._sasl_mechanism,
            sasl_plain_username=self._sasl_plain_username,
            sasl_plain_password=self._sasl_plain_password,
            sasl_oauth_token_provider=self._sasl_oauth_token_provider,
            **more,
        )

    async def _get_conn(
        self,
        node_id: Any,
        *,
        group: Any = ConnectionGroup.DEFAULT,
        no_hint: bool = False,  # noqa: ARG002 - as in the base class
    ) -> Any:
        key = (node_id, group)
        connection = self._conns.get(key)
        if connection is not None and connection.connected():
            return connection
        if connection is not None:
            # Its peer may have closed only its own half. Nobody else would close the other half.
            self._conns.pop(key).close()
        if self._ended:
            return None
        if key not in self._connecting:
            self._connecting[key] = asyncio.create_task(self._new_connection(key))
            self._connecting[key].add_done_callback(lambda _: self._connecting.pop(key, None))
        # Others may wait for the same connection, so a cancel of this wait does not cancel the task.
        task = self._connecting[key]
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def _new_connection(self, key: tuple[Any, Any]) -> Any:
        node_id, broker = key[0], self.cluster.broker_metadata(key[0])
        if broker is None:
            self.force_metadata_update()
            return None
        try:
            with self._watch_silence(node_id):
                async with asyncio.timeout(self._part_of_time_out(_CONNECT_SECONDS)):
                    closed = self._on_connection_closed
                    connection = await self._connect(broker.host, broker.port, on_close=closed)
        except (OSError, KafkaError) as error:
            _log.warning("no connection to broker %s at %s:%s: %r", node_id, broker.host, broker.port, error)
            self._silent.silent(broker.host, broker.port)
            self._answers.unreachable(node_id, f"{broker.host}:{broker.port}")
            self.force_metadata_update()
            return None
        self._answers.succeeded("connect", node_id)
        self._conns[key] = connection
        return connection

    async def close(self) -> None:
        """Close all connections. Those to a broker that reads no more are cut."""
        self._ended = True
        for task in tuple(self._connecting.values()):
            task.cancel()
        await asyncio.gather(*self._connecting.values(), return_exceptions=True)
        writers = [one._writer for one in self._conns.values() if one._writer is not None]
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await super().close()
        except TimeoutError:
            # A connection ends only after its peer has taken what was written.
            for writer in writers:
                writer.transport.abort()
        finally:
            if self._md_update_fut is not None and not self._md_update_fut.done():
                self._md_update_fut.set_result(False)

    # Requests.

    async def send(self, node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        """Send a request to a node, and record a refusal."""
        kind = type(request).__name__.removesuffix("Request")
        if isinstance(request, ProduceRequest):
            request = JoinedProduceRequest(request)
        try:
            with self._watch_silence(node_id):
                response = await self._send_in_time(kind, node_id, request, group)
            if kind == "Fetch":
                check_fetched(response)
        except NodeNotReadyError:
            raise
        except KafkaConnectionError as error:
            if isinstance(request, ProduceRequest):
                size = sum(len(data) for _, parts in request._topics for _, data in parts)
                self._answers.closed(node_id, size)
            else:
                self._answers.failed(kind, node_id, error)
            raise
        except KafkaError as error:
            self._answers.failed(kind, node_id, error)
            raise
        self._answers.answered(kind, node_id, response)
        self._heard(node_id, self._silent.answered)
        return response

    def _heard(self, node_id: Any, note: Callable[[str, int], None]) -> None:
        if (broker := self.cluster.broker_metadata(node_id)) is not None:
            note(broker.host, broker.port)

    async def _send_in_time(self, kind: str, node_id: Any, request: Any, group: Any) -> Any:
        try:
            async with asyncio.timeout(self._part_of_time_out(_QUICK_SECONDS) if kind in _QUICK else None):
                return await super().send(node_id, request, group=group)
        except TimeoutError as error:
            connection = self._conns.get((node_id, group))
            # A long answer, as that of a fetch, may still be on its way over the same connection.
            if connection is not None and all(future.done() for *_, future in connection._requests):
                connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise RequestTimedOutError from error

    @contextmanager
    def _watch_silence(self, node_id: Any) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        slow = loop.call_later(_SLOW_SECONDS, self._heard, node_id, self._silent.silent)
        refresh: asyncio.TimerHandle

        def refresh_later() -> None:
            nonlocal refresh
            refresh = loop.call_later(_REFRESH_SECONDS, refresh_now)

        def refresh_now() -> None:
            self.force_metadata_update()
            refresh_later()

        refresh_later()
        try:
            yield
        finally:
            slow.cancel()
            refresh.cancel()


def _is_final(answer: Any) -> bool:
    return _ELSEWHERE.isdisjoint(walk_error_codes(answer.to_object()))


def watch_answers(
    client: AIOKafkaClient, answers: Answers | None = None, silent: SilentBrokers | None = None
) -> Answers:
    """Turn a client that has not started into a PatientClient. Returns its refusals from now on.

    Args:
        client: the client of a producer, a consumer or an admin client.
        answers: where to record the refusals.
        silent: the brokers that did not answer other clients.
    """
    if answers is None:
        answers = Answers(client._request_timeout_ms)
    client.__class__ = PatientClient
    client.prepare(answers, silent or SilentBrokers())
    return answers
