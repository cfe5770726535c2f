"""One damaged answer of a store is no fault of a dataset, and hides none: reads and lists are repeated."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest

from shardline.services.sample import write_sample
from shardline_common.dataset.contents import list_sizes
from shardline_common.dataset.read import plain_bytes, read_hashes
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.errors import JobFailed, StoreUnavailable
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import ObjectInfo
from shardline_common.runtime.retry import Backoff
from tests.support.embedded import run_embedded, small_job

ROWS = b'{"id": 1}\n' * 500
SPEC = small_job(
    output={"shard_bytes": 8_192, "compression": "gzip"},
    partitions=2,
    quality={"min_score": 0.5, "keep_rejected": True},
)
LAYOUT = Layout.of(SPEC)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "longest", lambda *_: 0.0)


class DamagedStore(MemoryStore):
    """Halves the next reads of the keys in `halved`, and hides those in `hidden` from the next lists."""

    def __init__(self) -> None:
        super().__init__()
        self.halved: dict[str, int] = {}
        self.hidden: dict[str, int] = {}

    @classmethod
    def of(cls, other: MemoryStore) -> "DamagedStore":
        """A store with the same objects."""
        store = cls()
        store._objects = dict(other._objects)
        return store

    @staticmethod
    def _is_next(keys: dict[str, int], key: str) -> bool:
        left = keys.get(key, 0)
        keys[key] = max(0, left - 1)
        return left > 0

    async def get(self, key: str) -> bytes:
        body = await super().get(key)
        return body[: len(body) // 2] if self._is_next(self.halved, key) else body

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix, start_after=start_after):
            if not self._is_next(self.hidden, info.key):
                yield info


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    folder = tmp_path_factory.mktemp("damaged")
    write_sample(folder / "sample.jsonl", 60, broken=True)
    store = MemoryStore()
    view = asyncio.run(run_embedded(SPEC, store, folder))
    assert view.state.state == "completed", view.to_json()
    return store


async def keys(store: MemoryStore) -> list[str]:
    return [info.key async for info in store.list(LAYOUT.root)]


async def verified(store: MemoryStore) -> Report:
    return await Verifier(store, LAYOUT.root).run()


async def test_verify_reads_again_what_came_damaged(finished: MemoryStore) -> None:
    kinds = set()
    for key in await keys(finished):
        kind = key.removeprefix(LAYOUT.root).partition("/")[0]
        if kind not in ("data", "rejected", "dead-letters", "README.md"):
            continue
        kinds.add(kind)
        store = DamagedStore.of(finished)
        store.halved[key] = 1
        report = await verified(store)
        assert report.ok, report.problems
        store.halved[key] = 1000
        assert not (await verified(store)).ok
    assert len(kinds) == 4


async def test_verify_and_publishing_see_what_one_list_lacks(finished: MemoryStore) -> None:
    expected = await list_sizes(finished, LAYOUT)
    foreign = LAYOUT.root + "data/foreign.jsonl"
    for key in [*await keys(finished), foreign]:
        store = DamagedStore.of(finished)
        store.hidden[key] = 1
        assert await list_sizes(store, LAYOUT) == expected
        store.hidden[key] = 1
        report = await verified(store)
        assert report.ok, report.problems
        # A list that is not whole must not hide an object from the proof.
        await store.create(foreign, b"x")
        store.hidden[foreign] = 1
        assert not (await verified(store)).ok


async def test_lists_that_always_differ_are_an_error(
    finished: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, number = DamagedStore.of(finished), 0
    real = MemoryStore.list

    async def changing(self: MemoryStore, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        nonlocal number
        number += 1
        yield ObjectInfo(f"{prefix}{number}", 1)
        async for info in real(self, prefix, start_after=start_after):
            yield info

    monkeypatch.setattr(DamagedStore, "list", changing)
    with pytest.raises(StoreUnavailable, match=r"the lists of .* differ: \d+ is in one of two lists"):
        await list_sizes(store, LAYOUT)


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_an_existing_object_is_compared_by_two_reads(compression: str) -> None:
    store, plain = DamagedStore(), sha256(ROWS).hexdigest()
    await store.create("k", gzip.compress(ROWS) if compression == "gzip" else ROWS)
    store.halved["k"] = 1
    assert (await read_hashes(store, "k", compression, plain))[0] == plain
    # Another object is another one in each read.
    assert (await read_hashes(store, "k", compression, "0" * 64))[0] == plain
    store.halved["k"] = 1000
    if compression == "gzip":
        with pytest.raises(JobFailed, match="no valid gzip"):
            await read_hashes(store, "k", compression, plain)
    else:
        assert (await read_hashes(store, "k", compression, plain))[0] != plain


async def test_rows_of_a_shard_are_compared_with_the_manifest() -> None:
    store = DamagedStore()
    await store.create("k", ROWS)
    expected = sha256(ROWS).hexdigest()
    assert b"".join([piece async for piece in plain_bytes(store, "k", "none", expected)]) == ROWS
    store.halved["k"] = 1
    with pytest.raises(StoreUnavailable, match="k: the sha256 of the 2500 bytes that came is"):
        _ = [piece async for piece in plain_bytes(store, "k", "none", expected)]
