"""Brokers of Kafka as far as lookups go, in this process: each may be frozen, down, or know less than others.

They answer which versions they have, metadata, coordinators, producer ids, created topics and settings.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from aiokafka.protocol.admin import (
    ApiVersionRequest_v0,
    CreateTopicsRequest_v1,
    DescribeConfigsRequest_v0,
)
from aiokafka.protocol.api import RequestHeader_v1, ResponseHeader_v0
from aiokafka.protocol.coordination import FindCoordinatorRequest_v1
from aiokafka.protocol.metadata import MetadataRequest_v4
from aiokafka.protocol.transaction import InitProducerIdRequest_v0

HOST = "127.0.0.1"
UNKNOWN_TOPIC, TOPIC_EXISTS = 3, 36
_KINDS = (
    ApiVersionRequest_v0,
    CreateTopicsRequest_v1,
    DescribeConfigsRequest_v0,
    FindCoordinatorRequest_v1,
    InitProducerIdRequest_v0,
    MetadataRequest_v4,
)
REQUESTS: dict[int, Any] = {kind.API_KEY: kind for kind in _KINDS}


@dataclass
class StandIn:
    """One broker. `topics`: those that it knows, with their partitions. `codes`: its errors, by request.

    `frozen`: it accepts connections and answers nothing; `held` are the requests that it does not answer.
    `asked`: how often it got each request.
    """

    node: int
    cluster: "StandIns"
    topics: dict[str, int] | None = None
    codes: dict[str, int] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)
    port: int = 0
    open: int = 0

    def __post_init__(self) -> None:
        self._answering = asyncio.Event()
        self._answering.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """The address that it listens on and advertises."""
        return f"{HOST}:{self.port}"

    @property
    def frozen(self) -> bool:
        """Whether it answers nothing."""
        return not self._answering.is_set()

    @frozen.setter
    def frozen(self, value: bool) -> None:
        if value:
            self._answering.clear()
        else:
            self._answering.set()

    async def start(self) -> None:
        """Listen; after the first start on the same port."""
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Die: connections are cut, and others refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while True:
                    size = int.from_bytes(await reader.readexactly(4), "big")
                    frame = BytesIO(await reader.readexactly(size))
                    header = RequestHeader_v1.SCHEMA.decode(frame)
                    kind = REQUESTS[header[0]]
                    name = kind.__name__.partition("Request")[0]
                    self.asked[name] += 1
                    await self._answering.wait()
                    if name in self.held:
                        await asyncio.Event().wait()
                    response = kind.RESPONSE_TYPE(*self._answer(name, kind.SCHEMA.decode(frame)))
                    body = ResponseHeader_v0.SCHEMA.encode([header[2]]) + response.encode()
                    writer.write(len(body).to_bytes(4, "big") + body)
                    await writer.drain()
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    def _answer(self, name: str, fields: Any) -> tuple[Any, ...]:
        code = self.codes.get(name, 0)
        answers: dict[str, Callable[[], tuple[Any, ...]]] = {
            "ApiVersion": lambda: (
                0,
                [(key, one.API_VERSION, one.API_VERSION) for key, one in REQUESTS.items()],
            ),
            "CreateTopics": lambda: ([self._create(topic[0], topic[1], code) for topic in fields[0]],),
            "DescribeConfigs": lambda: (
                0,
                [
                    (code, None, kind, topic, [("retention.ms", "-1", False, False, False)])
                    for kind, topic, _ in fields[0]
                ],
            ),
            "FindCoordinator": lambda: (0, code, None, self.cluster.coordinator, HOST, 0),
            "InitProducerId": lambda: (0, code, 1, 0),
            "Metadata": lambda: self._metadata(fields[0]),
        }
        return answers[name]()

    def _create(self, topic: str, partitions: int, code: int) -> tuple[str, int, None]:
        known = topic in self.cluster.topics
        self.cluster.topics.setdefault(topic, partitions)
        return topic, code or (TOPIC_EXISTS if known else 0), None

    def _metadata(self, wanted: list[str] | None) -> tuple[Any, ...]:
        topics = self.cluster.topics if self.topics is None else self.topics
        leader = self.cluster.leader
        known = [
            (
                self.cluster.topic_code,
                name,
                False,
                [(0, number, leader, [leader], [leader]) for number in range(topics[name])],
            )
            if name in topics
            else (UNKNOWN_TOPIC, name, False, [])
            for name in (topics if wanted is None else wanted)
        ]
        brokers = [
            (one.node, HOST, one.port, None)
            for one in self.cluster.brokers
            if one.node in self.cluster.listed
        ]
        return 0, brokers, None, self.cluster.controller, known


@dataclass
class StandIns:
    """A cluster. `listed`: the nodes that metadata lists; `leader` leads all partitions.

    `topic_code`: the error of every topic that a broker knows.
    """

    brokers: list[StandIn] = field(default_factory=list)
    topics: dict[str, int] = field(default_factory=dict)
    listed: set[int] = field(default_factory=set)
    controller: int = 1
    coordinator: int = 1
    leader: int = 1
    topic_code: int = 0

    @property
    def bootstrap(self) -> str:
        """The addresses of all brokers."""
        return ",".join(one.address for one in self.brokers)

    def __getitem__(self, node: int) -> StandIn:
        return self.brokers[node - 1]


@asynccontextmanager
async def stand_in_cluster(count: int = 3) -> AsyncIterator[StandIns]:
    """A cluster of this many brokers, with the nodes 1, 2, ….."""
    cluster = StandIns()
    cluster.brokers = [StandIn(node, cluster) for node in range(1, count + 1)]
    cluster.listed = {one.node for one in cluster.brokers}
    try:
        for one in cluster.brokers:
            await one.start()
        yield cluster
    finally:
        for one in cluster.brokers:
            one.frozen = False
            await one.stop()
