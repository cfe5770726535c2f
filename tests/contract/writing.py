"""Messages, and how tests of the brokers write and read them."""

from collections.abc import Awaitable, Callable, Sequence

from shardline_common.ports.broker import Broker, Message, Record, TransactionalWriter

SECONDS = 30.0


def message(key: str, value: bytes | None = b"v", partition: int | None = 0) -> Message:
    return Message(key.encode(), value, partition)


def numbered(first: int, last: int, partition: int = 0) -> list[Message]:
    return [message(f"k{number}", str(number).encode(), partition) for number in range(first, last)]


def values(records: Sequence[Record]) -> list[bytes | None]:
    return [record.value for record in records]


class BodyError(Exception):
    """What a test raises in the body of a transaction."""


async def write(writer: TransactionalWriter, messages: Sequence[Message]) -> None:
    async with writer.transaction() as transaction:
        await transaction.send("t", messages)


async def write_and_fail(
    writer: TransactionalWriter,
    messages: Sequence[Message],
    before: Callable[[], Awaitable[None]] | None = None,
) -> None:
    async with writer.transaction() as transaction:
        await transaction.send("t", messages)
        if before is not None:
            await before()
        raise BodyError


async def table(broker: Broker, topic: str = "t") -> list[bytes | None]:
    """Everything that is committed now."""
    async with broker.table_reader(topic) as reader:
        return values(await reader.catch_up(deadline=SECONDS))
