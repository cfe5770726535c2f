"""Both brokers, for what must hold of either."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from shardline_common.kafka.broker import open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.memory.broker import MemoryBroker
from shardline_common.ports.broker import Broker


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.server)])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    before = asyncio.all_tasks()
    if request.param == "memory":
        yield MemoryBroker()
    else:
        address, prefix = request.getfixturevalue("kafka"), f"{uuid4().hex[:8]}-"
        options = KafkaOptions(address, prefix, session_timeout_ms=6000, request_timeout_ms=10_000)
        async with open_kafka(options) as kafka:
            yield kafka
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert [task.get_name() for task in left] == []
