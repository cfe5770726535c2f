"""The probe of a store: it finds broken promises, and distinguishes them from lost and busy answers."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from shardline_common.errors import ObjectExists, StoreRefused, StoreUnavailable, UsageError
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import Body
from shardline_common.runtime.clock import SystemClock
from shardline_common.runtime.retry import Backoff
from shardline_common.storage import probe
from shardline_common.storage.probe import ROUNDS, WRITERS, probe_create_only, probe_once_a_day


class DayClock(SystemClock):
    """A wall clock that the test moves."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 29, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class Counting(MemoryStore):
    """Counts the puts of each key; `alone` is the put before the races."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: Counter[str] = Counter()
        self.sizes: list[int] = []

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:
        self.puts[key] += 1
        self.sizes.append(len(body) if isinstance(body, bytes) else 0)
        await super().create(key, body, content_type=content_type)

    def races(self) -> int:
        return sum(count >= WRITERS for count in self.puts.values())


class AnswersLost(Counting):
    """Every put is applied, and what its sender hears is the answer to his second try."""

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:
        await super().create(key, body, content_type=content_type)
        raise ObjectExists(key)


class Overwrites(MemoryStore):
    """Whoever comes last wins."""

    async def create(self, key: str, body: Body, **_: object) -> None:
        self._objects[key] = body if isinstance(body, bytes) else body.read_bytes()


class ChecksFirst(MemoryStore):
    """Looks for the key, and writes it a moment later in one of so many rounds, as some stores do in most."""

    def __init__(self, loses: float, seed: int) -> None:
        super().__init__()
        self._loses, self._dice = loses, random.Random(seed)
        self._lost: dict[str, bool] = {}

    async def create(self, key: str, body: Body, **_: object) -> None:
        lost = self._lost.setdefault(key, self._dice.random() < self._loses)
        if key in self._objects:
            raise ObjectExists(key)
        if lost:
            await asyncio.sleep(0)
        self._objects[key] = body if isinstance(body, bytes) else body.read_bytes()


class Inverted(MemoryStore):
    """Refuses a put exactly if there is no object, as a backend of Ceph once did."""

    async def create(self, key: str, *_: object, **__: object) -> None:
        raise ObjectExists(key)


class RefusesAndReplaces(MemoryStore):
    """Says that the object exists, and replaces it all the same."""

    async def create(self, key: str, body: Body, **_: object) -> None:
        exists = key in self._objects
        self._objects[key] = body if isinstance(body, bytes) else body.read_bytes()
        if exists:
            raise ObjectExists(key)


class Busy(Counting):
    """Answers "busy" to each writer several times in a row, also to the first one of a key."""

    def __init__(self, times: int, error: type[StoreUnavailable] = StoreUnavailable) -> None:
        super().__init__()
        self._left: dict[tuple[str, bytes], int] = {}
        self._times, self._error = times, error

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:
        assert isinstance(body, bytes)
        if body != b"alone" and self._left.setdefault((key, body), self._times):
            self._left[key, body] -= 1
            raise self._error("ConditionalRequestConflict")
        await super().create(key, body, content_type=content_type)


async def test_a_lost_answer_is_asked_again() -> None:
    store = AnswersLost()
    with pytest.raises(StoreUnavailable, match="did not say"):
        await probe_create_only(store)
    assert store.races() > 1
    assert store._objects == {}


async def test_a_lost_answer_among_others_does_not_end_the_probe() -> None:
    class Sometimes(Counting):
        async def create(self, key: str, body: Body, **_: object) -> None:
            await super().create(key, body)
            if self.races() % 3 == 2:
                raise ObjectExists(key)

    await probe_create_only(Sometimes())


async def test_a_store_that_overwrites_is_refused() -> None:
    with pytest.raises(UsageError, match="12 of 12"):
        await probe_create_only(Overwrites())


@pytest.mark.parametrize(
    ("store", "reason"), [(Inverted, "no such object"), (RefusesAndReplaces, "is not that of the writer")]
)
async def test_a_store_that_answers_wrongly_is_refused(store: type[MemoryStore], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        await probe_create_only(store())


async def test_a_store_that_loses_half_of_its_races_is_found() -> None:
    for seed in range(200):
        with pytest.raises(UsageError, match="does not honour create-only puts"):
            await probe_create_only(ChecksFirst(21 / 40, seed))


async def test_a_good_store_passes_after_all_rounds_and_nothing_is_left() -> None:
    store = Counting()
    await probe_create_only(store)
    assert store.races() == ROUNDS
    assert (19 / 40) ** ROUNDS < 0.001
    assert {size > 65_536 for size in store.sizes} == {True, False}
    assert store._objects == {}


async def test_busy_answers_in_bursts_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_BACKOFF", Backoff(0.0, 0.0))
    store = Busy(20)
    await probe_create_only(store)
    assert store.races() == ROUNDS
    monkeypatch.setattr(probe, "_BUSY_SECONDS", 0.0)
    with pytest.raises(StoreUnavailable, match="ConditionalRequestConflict"):
        await probe_create_only(Busy(10**9))


async def test_a_refusal_is_not_repeated() -> None:
    with pytest.raises(StoreRefused):
        await probe_create_only(Busy(1, StoreRefused))


async def test_a_store_that_is_away_is_named_at_once() -> None:
    class Away(Counting):
        async def create(self, key: str, *_: object, **__: object) -> None:
            self.puts[key] += 1
            raise StoreUnavailable("away")

    store = Away()
    with pytest.raises(StoreUnavailable, match="away"):
        await probe_create_only(store)
    assert store.puts.total() == 1


async def test_a_pass_is_remembered_for_a_day() -> None:
    store, clock = Counting(), DayClock()
    await probe_once_a_day(store, "http://one", clock)
    assert store.races() == ROUNDS
    for seconds in (0, 3600, 22 * 3600):
        clock.advance(seconds)
        await probe_once_a_day(store, "http://one", clock)
    assert store.races() == ROUNDS
    (record,) = store._objects.values()
    assert b"http" not in record
    clock.advance(2 * 3600)
    await probe_once_a_day(store, "http://one", clock)
    assert store.races() == 2 * ROUNDS
    await probe_once_a_day(store, "http://two", clock)
    assert store.races() == 3 * ROUNDS


async def test_old_records_are_deleted() -> None:
    store, clock = MemoryStore(), DayClock()
    for _ in range(10):
        await probe_once_a_day(store, None, clock)
        clock.advance(timedelta(days=1, minutes=1).total_seconds())
    assert len(store._objects) <= 3


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 1, "at": 3}'])
async def test_a_record_that_is_none_is_not_trusted(body: bytes) -> None:
    store, clock = Counting(), DayClock()
    await probe_once_a_day(store, None, clock)
    (key,) = store._objects
    store._objects[key] = body
    await probe_once_a_day(store, None, clock)
    assert store.races() == 2 * ROUNDS
    clock.advance(-3600)
    store._objects.clear()
    await probe_once_a_day(store, None, clock)
    clock.advance(-3600)
    await probe_once_a_day(store, None, clock)
    assert store.races() == 4 * ROUNDS, "a record of the future"


async def test_a_process_that_may_not_record_probes_each_time() -> None:
    class Forbidden(Counting):
        async def create(self, key: str, body: Body, **_: object) -> None:
            if "passed" in key:
                raise StoreRefused("AccessDenied")
            await super().create(key, body)

        async def delete(self, *_: object) -> None:
            raise StoreRefused("AccessDenied")

    store = Forbidden()
    for _ in range(2):
        await probe_once_a_day(store, None, DayClock())
    assert store.races() == 2 * ROUNDS


async def test_a_store_that_failed_is_not_remembered() -> None:
    for _ in range(2):
        with pytest.raises(UsageError):
            await probe_once_a_day(Overwrites(), None, DayClock())


async def test_a_record_that_may_not_be_read_is_none() -> None:
    class Unlisted(Counting):
        async def get(self, key: str) -> bytes:
            if key not in self._objects:
                raise StoreRefused("AccessDenied")
            return await super().get(key)

    store = Unlisted()
    await probe_once_a_day(store, None, DayClock())
    assert store.races() == ROUNDS
