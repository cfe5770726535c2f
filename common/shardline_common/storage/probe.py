"""The probe of an object store: whether it honours create-only puts, on which exactly-once depends."""

import asyncio
import logging
import secrets
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256

import orjson

from shardline_common.errors import (
    ObjectExists,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    UsageError,
    explain,
)
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.retry import Backoff

WRITERS = 12
# A store that checks for the key and then writes it (S3Mock 4.11) was seen to lose 21 of 40 rounds, so one
# round finds it with 21/40 = 0.525, and 12 rounds miss it with 0.475^12 = 0.00013, under one in a thousand.
ROUNDS = 12
# Every third round: it loses two of three of these, because they take longer. Stores also keep small objects
# in another place, as MinIO does below 128 KiB.
_LARGE_EACH, _LARGE_BYTES = 3, 256 << 10
# A store may answer every writer but one with "busy" (409) for a while.
_BUSY_SECONDS = 30.0
_BACKOFF = Backoff(0.1, 2.0)
_REPEATS = 3
_FOLDER = "_probe/"
_PASSED, _DAY = f"{_FOLDER}passed-", timedelta(days=1)
# Of what a pass means: a version that probes more must not rely on what an older one has recorded.
_VERSION = 1
_log = logging.getLogger(__name__)


async def probe_once_a_day(store: ObjectStore, endpoint: str | None, clock: Clock) -> None:
    """Probe the store, unless a process has recorded within a day that it passed.

    The record is an object of the store: all processes that use it find the record, also with a file system
    that is read-only, and a store that is replaced has none. Processes that start together all probe.

    Args:
        store: the store.
        endpoint: the address through which it is used. Behind another address may be another store that has
            a copy of the record.
        clock: tells the age of the record.

    Raises:
        UsageError, StoreUnavailable: as `probe_create_only`.
    """
    if await _passed(store, _suffix(endpoint), clock.now()):
        return
    await probe_create_only(store)
    # A process without the rights, or on a store that refuses for a moment, probes again next time.
    with suppress(StoreUnavailable, ObjectExists):
        await record_pass(store, endpoint, clock)


async def record_pass(store: ObjectStore, endpoint: str | None, clock: Clock) -> None:
    """Record that the store has passed now, and delete old records.

    Raises:
        ObjectExists: it is recorded today already.
        StoreUnavailable: the store cannot be reached, or refuses.
    """
    today, suffix = clock.now(), _suffix(endpoint)
    body = orjson.dumps({"version": _VERSION, "at": today.isoformat()})
    await store.create(_record(today, suffix), body)
    kept = {_record(today - _DAY, suffix), _record(today, suffix), _record(today + _DAY, suffix)}
    found = [info.key async for info in store.list(_PASSED) if info.key.endswith(suffix)]
    if old := [key for key in found if key not in kept]:
        await store.delete(old)


async def _passed(store: ObjectStore, suffix: str, now: datetime) -> bool:
    for day in (now, now - _DAY):
        try:
            record = orjson.loads(await store.get(_record(day, suffix)))
            age = now - datetime.fromisoformat(record["at"])
            # A record of the future comes from a clock that is wrong: it would be valid for too long.
            if record["version"] == _VERSION and timedelta(minutes=-15) <= age < _DAY:
                return True
        except (ObjectMissing, StoreRefused):
            # Without the right to list, a store refuses to say that there is no such object.
            continue
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("%s/%s is no record of a probe: %s", store.uri, _record(day, suffix), error)
    return False


def _suffix(endpoint: str | None) -> str:
    return f"-{sha256((endpoint or 'AWS').encode()).hexdigest()[:12]}.json"


def _record(day: datetime, suffix: str) -> str:
    return f"{_PASSED}{day.date().isoformat()}{suffix}"


async def probe_create_only(store: ObjectStore, rounds: int = ROUNDS) -> None:
    """Create `rounds` keys by 12 concurrent puts each, and check that one put of each key succeeds.

    Raises:
        UsageError: more than one succeeded, or none, or the object is not that of the put that succeeded.
        StoreUnavailable: the store cannot be reached, or the winner's response was lost; call again.
    """
    folder = f"{_FOLDER}{secrets.token_hex(16)}"
    keys = [f"{folder}-alone"]
    try:
        # A store that is away or refuses is named at once. In a race an answer "busy" is waited for.
        await _create_alone(store, keys[0])
        # All rounds at once: SeaweedFS 4.48 lets writers of one key wait for each other, for seconds a round.
        races = (_decided_race(store, f"{folder}-{number}", keys, number) for number in range(1, rounds + 1))
        # All of them have ended before the keys are deleted, also when one has failed.
        failed = [one for one in await asyncio.gather(*races, return_exceptions=True) if one is not None]
        for error in sorted(failed, key=lambda error: not isinstance(error, UsageError)):
            raise error
    finally:
        # A process that only writes may have no right to delete.
        with suppress(StoreUnavailable):
            await store.delete(keys)


async def _decided_race(store: ObjectStore, name: str, keys: list[str], number: int) -> None:
    size = 0 if number % _LARGE_EACH else _LARGE_BYTES
    for repeat in range(1, _REPEATS + 1):
        keys.append(key := f"{name}-{repeat}")
        if await _race(store, key, size):
            return
    raise StoreUnavailable(f"{store.uri} did not say which of {WRITERS} writers succeeded")


async def _create_alone(store: ObjectStore, key: str) -> None:
    body = b"alone"
    with suppress(ObjectExists):
        # It may be this put's own object: the response was lost, and the client has repeated the request.
        await store.create(key, body, content_type="text/plain")
    if await _read(store, key) != body:
        raise _refusal(store, f"the object {key} is not what was put")


async def _race(store: ObjectStore, key: str, size: int) -> bool:
    """Create a key by all writers at once. False if none says that it succeeded, and one has."""
    bodies = [b"%d\n" % number + bytes(size) for number in range(WRITERS)]
    deadline = asyncio.get_running_loop().time() + _BUSY_SECONDS
    creates = (_create_patiently(store, key, body, deadline) for body in bodies)
    results = await asyncio.gather(*creates, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    winners = [body for body, success in zip(bodies, results, strict=True) if success]
    if len(winners) > 1:
        raise _refusal(store, f"{len(winners)} of {WRITERS} writers of one key succeeded")
    found = await _read(store, key)
    if not winners:
        # The winner's response was lost, and its retry found its own object.
        return False
    if found != winners[0]:
        raise _refusal(store, f"the object {key} is not that of the writer that succeeded")
    return True


async def _create_patiently(store: ObjectStore, key: str, body: bytes, deadline: float) -> bool:
    failures = 0
    while True:
        try:
            await store.create(key, body, content_type="text/plain")
        except ObjectExists:
            return False
        except StoreRefused:
            raise
        except StoreUnavailable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            _log.debug("a put of the probe is repeated: %s", explain(error))
        else:
            return True
        await asyncio.sleep(_BACKOFF.pause(failures))
        failures += 1


async def _read(store: ObjectStore, key: str) -> bytes:
    try:
        return await store.get(key)
    except ObjectMissing:
        raise _refusal(store, f"the object {key} was put, and there is no such object") from None


def _refusal(store: ObjectStore, what: str) -> UsageError:
    return UsageError(
        f"{store.uri} does not honour create-only puts (If-None-Match: *): {what}",
        hint="use a store or a version that does: exactly-once depends on it",
    )
