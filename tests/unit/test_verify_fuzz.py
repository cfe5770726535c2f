"""Any bytes in place of an object of a dataset: `verify` reports a problem, and raises no error."""

import asyncio
import copy
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline.services.sample import write_sample
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from tests.support.embedded import run_embedded, small_job

SPEC = small_job(output={"shard_bytes": 8_192}, partitions=2)
ROOT = Layout.of(SPEC).root


class Contents(dict[str, bytes]):
    """Keys and bytes of a dataset's files, too many to be shown for every example."""

    def __repr__(self) -> str:
        return f"{len(self)} files"


numbers = st.integers(0, 1 << 30)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([-(1 << 63) - 1, 1 << 63, 1 << 64])
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    folder = tmp_path_factory.mktemp("fuzz")
    write_sample(folder / "sample.jsonl", 60)
    store = MemoryStore()
    asyncio.run(run_embedded(SPEC, store, folder))
    return asyncio.run(contents(store))


async def contents(store: MemoryStore) -> Contents:
    return Contents([(info.key, await store.get(info.key)) async for info in store.list(ROOT)])


def verified(found: dict[str, bytes]) -> Report:
    async def judged() -> Report:
        store = MemoryStore()
        for key, body in found.items():
            await store.create(key, body)
        return await Verifier(store, ROOT).run()

    return asyncio.run(judged())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, item in inner for place in places(item, (*path, name)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a path; nothing is left there for `...`."""
    if not path:
        return None if new is ... else new
    value = copy.deepcopy(value)
    inner = value
    for name in path[:-1]:
        inner = inner[name]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


def encoded(value: Any) -> bytes:
    """As JSON; what orjson refuses as the standard library writes it."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode("utf-8", "surrogatepass")


@settings(max_examples=400)
@given(which=numbers, where=numbers, new=values | st.just(...))
def test_a_changed_file_causes_no_traceback(finished: Contents, which: int, where: int, new: Any) -> None:
    names = sorted(key for key in finished if key.endswith(".json"))
    key = names[which % len(names)]
    original = orjson.loads(finished[key])
    path = places(original)[where % len(places(original))]
    changed = encoded(replaced(original, path, new))
    report = verified(finished | {key: changed})
    assert report.ok == (not report.problems)
    assert report.ok == (changed == finished[key]), (key, path, changed)


@settings(max_examples=200)
@given(which=numbers, body=st.binary(max_size=200))
def test_random_bytes_in_a_file_cause_no_traceback(finished: Contents, which: int, body: bytes) -> None:
    key = sorted(finished)[which % len(finished)]
    report = verified(finished | {key: body})
    assert report.ok == (body == finished[key]), (key, body, report.problems)
