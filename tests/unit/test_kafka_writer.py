"""The order in which a transaction hands its batches to the client."""

from types import SimpleNamespace
from typing import Any

from shardline_common.kafka.client_errors import Request
from shardline_common.kafka.options import KafkaOptions
from shardline_common.kafka.writer import _KafkaTransaction
from shardline_common.ports.broker import Message


class Client:
    """Takes batches. It has a request where a second batch of a partition comes, as that one waits."""

    def __init__(self) -> None:
        self.requests: list[dict[int, int]] = [{}]

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> None:
        assert topic == "p.t"
        if partition in self.requests[-1]:
            self.requests.append({})
        self.requests[-1][partition] = batch.record_count()


async def test_each_request_has_a_batch_of_each_partition() -> None:
    client, options = Client(), KafkaOptions("b", prefix="p.", batch_bytes=400)
    operations: Any = SimpleNamespace(options=options)
    producer: Any = client
    messages = [Message(b"k", bytes(100), number % 3) for number in range(18)]
    messages += [Message(b"k", bytes(100), 3)]
    await _KafkaTransaction(producer, operations, Request("sent"))._send("p.t", messages)
    assert client.requests == [{0: 3, 1: 3, 2: 3, 3: 1}, {0: 3, 1: 3, 2: 3}]
