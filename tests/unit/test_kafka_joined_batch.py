"""A joined batch has the bytes of the builder of aiokafka."""

from collections.abc import Sequence

from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shardline_common.kafka.joined_batch import joined_batches
from shardline_common.ports.broker import Message

TIME = 1_790_000_000_123
STATE = (1 << 40, 7, 1 << 20)
_headers = st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=70)), max_size=2)
_message = st.builds(
    Message,
    st.binary(max_size=80),
    st.none() | st.binary(max_size=200),
    st.just(0),
    _headers.map(tuple),
)


def built(messages: Sequence[Message]) -> tuple[bytes, int, int]:
    """One batch of the client with these messages."""
    batch = BatchBuilder(1 << 30, 0, is_transactional=1)
    for one in messages:
        added = {"timestamp": TIME, "key": one.key, "value": one.value, "headers": list(one.headers)}
        assert batch.append(**added) is not None
    return finished(batch)


def finished(batch: BatchBuilder) -> tuple[bytes, int, int]:
    size = batch.size()
    batch._set_producer_state(*STATE)
    found = bytes(batch._build())
    assert batch.closed()
    # As for a batch that is sent again.
    assert bytes(batch._build()) == found
    assert size == len(found) == batch.size()
    return found, size, batch.record_count()


@settings(max_examples=100)
@given(messages=st.lists(_message, max_size=150), max_bytes=st.sampled_from([1, 300, 2000, 1 << 20]))
@example(messages=[Message(b"k" * number, bytes(number), 0) for number in (63, 64, 8191, 8192)], max_bytes=1)
@example(messages=[Message(b"k", bytes(1 << 21), 0)] * 2, max_bytes=1 << 20)
def test_joined_batches_are_full_and_have_the_bytes_of_the_client(
    messages: Sequence[Message], max_bytes: int
) -> None:
    rest = list(messages)
    for batch in joined_batches(messages, max_bytes, TIME):
        own, rest = rest[: batch.record_count()], rest[batch.record_count() :]
        assert finished(batch) == built(own)
        assert batch.size() <= max_bytes or len(own) == 1
        # The client's own cut is a byte early where records have headers.
        assert not rest or built([*own, rest[0]])[1] > max_bytes
    assert rest == []
