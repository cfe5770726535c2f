"""Events fold in any order and with repeats."""

import random

from hypothesis import given
from hypothesis import strategies as st

from shardline_common.dataset.events import Event, EventTotals, fold

histories = st.dictionaries(
    st.integers(0, 5), st.lists(st.integers(1, 50), min_size=1, max_size=8), max_size=6
)


def story(history: dict[int, list[int]]) -> list[Event]:
    events = []
    for partition, steps in history.items():
        reached = 0
        for step in steps:
            reached += step
            rows = reached // 2
            events.append(
                Event("job", 1, partition, reached, rows, rows * 10, "now", {"empty": reached - rows}, {})
            )
    return events


@given(histories, st.integers())
def test_order_and_repeats_do_not_matter(history: dict[int, list[int]], seed: int) -> None:
    events = story(history)
    shuffled = events + events[::2]
    random.Random(seed).shuffle(shuffled)
    folded = fold(shuffled)
    assert folded == fold(events)
    assert folded.chained == sum(sum(steps) for steps in history.values())


def test_nothing_heard_is_nothing_done() -> None:
    assert fold([]) == EventTotals()


def test_an_event_survives_its_encoding() -> None:
    import orjson

    event = Event("job", 2, 3, 4, 5, 6, "now", {"empty": 1}, {"invalid_json": 2})
    assert Event.decode(orjson.dumps(event)) == event
