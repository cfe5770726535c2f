"""The logs of the in-memory broker: what they return is what a list of all messages would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import OffsetOutOfRange
from shardline_common.memory import log as memory_log
from shardline_common.memory.log import PartitionLog
from shardline_common.ports.broker import Message, Record

KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.tuples(KEYS, st.binary(max_size=4)), max_size=5)),
        st.tuples(st.just("trim"), st.integers(0, 30)),
        st.tuples(st.just("compact"), st.none()),
    ),
    max_size=12,
)


@given(steps=STEPS, retention=st.sampled_from([-1, 10]), offset=st.integers(0, 40), count=st.integers(0, 9))
def test_a_log_returns_what_was_appended_and_not_deleted(
    steps: list[tuple[str, object]], retention: int, offset: int, count: int
) -> None:
    found, kept, start, end = PartitionLog(retention), list[Record](), 0, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_log, "_COMPACT_FROM", 4)
        for step, value in steps:
            if isinstance(value, list):
                found.append(1, [Message(key, body) for key, body in value])
                kept += [Record(1, end + at, key, body) for at, (key, body) in enumerate(value)]
                end += len(value)
                found.retain()
                while retention >= 0 and sum(map(size, kept)) > retention and len(kept) > 1:
                    start = kept.pop(0).offset + 1
            elif step == "trim":
                assert isinstance(value, int)
                found.trim(value)
                start = max(start, min(value, end))
                kept = [record for record in kept if record.offset >= start]
            elif len(kept) >= 4:
                found.compact()
                latest = {record.key: record.offset for record in kept}
                kept = [record for record in kept if latest[record.key] == record.offset]
    assert (found.start, found.end, found.records) == (start, end, kept)
    if start <= offset <= end:
        assert found.read(offset, count) == [record for record in kept if record.offset >= offset][:count]
    else:
        with pytest.raises(OffsetOutOfRange):
            found.read(offset, count)


def size(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"")
