"""What a connection receives directly is what a stream gives."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_common.kafka.direct_connection import _FrameReader

SMALL = 1 << 16


class Transport:
    """Counts the pauses of a reader."""

    def __init__(self) -> None:
        self.paused = False

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


def reader_of(transport: Transport) -> Any:
    stream = asyncio.StreamReader()
    stream.set_transport(transport)  # type: ignore[arg-type]
    stream.__class__ = _FrameReader
    reader: Any = stream
    reader.prepare()
    return reader


async def receive(reader: Any, transport: Transport, data: bytes, most: Sequence[int]) -> None:
    """As a transport does it: so many bytes at a time, none while it is paused."""
    at = turn = 0
    while at < len(data):
        if not transport.paused:
            room = reader.room()
            assert len(room) > 0
            count = min(len(room), most[turn % len(most)], len(data) - at)
            room[:count] = data[at : at + count]
            reader.received(count)
            at, turn = at + count, turn + 1
        if turn % 2 or transport.paused:
            await asyncio.sleep(0)
    reader.feed_eof()


_sizes = st.integers(1, 300) | st.sampled_from([SMALL // 2, SMALL // 2 + 1, SMALL, SMALL + 1, 3 * SMALL])


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(_sizes, max_size=12),
    most=st.lists(st.sampled_from([1000, 5000, SMALL - 1, SMALL, 10 * SMALL]), min_size=1, max_size=4),
    rest=st.integers(0, 50),
)
def test_reads_give_the_bytes_that_were_received(
    sizes: Sequence[int], most: Sequence[int], rest: int
) -> None:
    async def run() -> None:
        transport = Transport()
        reader = reader_of(transport)
        data = bytes(number * 37 % 251 for number in range(1 << 12)) * (sum(sizes) // (1 << 12) + 1)
        data = data[: sum(sizes)] + b"!" * rest
        receiving = asyncio.create_task(receive(reader, transport, data, most))
        bounds = [0]
        for size in sizes:
            bounds.append(bounds[-1] + size)
        async with asyncio.timeout(60):
            for start, end in pairwise(bounds):
                assert bytes(await reader.readexactly(end - start)) == data[start:end]
            with pytest.raises(asyncio.IncompleteReadError):
                await reader.readexactly(rest + 1)
            await receiving
        assert reader.at_eof()

    asyncio.run(run())


async def test_the_error_of_a_connection_ends_a_read() -> None:
    for size in (4, 2 * SMALL):
        reader = reader_of(Transport())
        reading = asyncio.create_task(reader.readexactly(size))
        await asyncio.sleep(0)
        reader.set_exception(ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError):
            await reading


async def test_a_large_answer_wakes_its_reader_once() -> None:
    reader, woken = reader_of(Transport()), 0
    reading = asyncio.create_task(reader.readexactly(3 * SMALL))
    await asyncio.sleep(0)
    for _ in range(3):
        reader.room()[:SMALL] = bytes(SMALL)
        reader.received(SMALL)
        woken += reader._arrived is not None and reader._arrived.done()
    assert woken == 1
    assert len(await reading) == 3 * SMALL
