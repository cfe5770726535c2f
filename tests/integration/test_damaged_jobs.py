"""Whatever happens to an object of a running job, the job ends or says why not; no broken one completes."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from shardline.services.embedded import EmbeddedRun
from shardline.services.job_view import JobView
from shardline.services.sample import write_sample
from shardline.services.wiring.sources import source_factory
from shardline_common.errors import JobConflict, JobFailed, JobInvalid, explain
from shardline_common.job.names import Layout, job_key
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerPolicy
from tests.support.embedded import small_job, verify

SPEC = small_job(
    partitions=2,
    output={"shard_bytes": 4096, "validation_fraction": 0.2},
    quality={"min_score": 0.5, "keep_rejected": True},
)
LAYOUT = Layout.of(SPEC)
SECONDS = 20

MOMENTS = {
    "accepted": "_jobs/",
    "planned": "_state/plan.json",
    "first segment": "_state/chain/00001/000000000000",
    "last segment": "_state/chain/00001/000000000028",
    "decided": "_state/outcome-1",
    "manifest": "manifest.json",
    "card": "README.md",
}
"""When the damage is done: after the first create of a key that contains this."""

OBJECTS = {
    "record of the job": job_key(SPEC.job_id),
    "plan": LAYOUT.plan,
    "plan page": LAYOUT.plan_pages + "000000000000.json",
    "first chain record": LAYOUT.chain_record(1, 0),
    "middle chain record": LAYOUT.chain_record(1, 11),
    "last chain record": LAYOUT.chain_record(1, 28),
    "shard": LAYOUT.data("train", 1, 11),
    "rejected": LAYOUT.rejected(1, 28),
    "dead letters": LAYOUT.dead_letters(1, 11),
    "outcome": LAYOUT.outcome(1),
    "later outcome": LAYOUT.outcome(2),
    "manifest": LAYOUT.manifest,
    "card": LAYOUT.card,
    "_SUCCESS": LAYOUT.success,
}
Objects = dict[str, bytes]


def lose(objects: Objects, key: str) -> None:
    objects.pop(key, None)


def cut(objects: Objects, key: str) -> None:
    if key in objects:
        objects[key] = objects[key][:-1]


def write_nothing(objects: Objects, key: str) -> None:
    objects[key] = b""


def write_other_json(objects: Objects, key: str) -> None:
    objects[key] = b"{}\n"


def write_beside(objects: Objects, key: str) -> None:
    objects[key + ".bak"] = b"x"


def make_a_folder(objects: Objects, key: str) -> None:
    objects[key + "/x"] = objects.pop(key, b"x")


DAMAGES = (lose, cut, write_nothing, write_other_json, write_beside, make_a_folder)


class DamagedStore(MemoryStore):
    """Calls `damage` with all objects, once, after the first create of a key that contains `moment`."""

    def __init__(self, moment: str, damage: Callable[[Objects], None]) -> None:
        super().__init__(self._intervene)
        self._moment = moment
        self._damage: Callable[[Objects], None] | None = damage

    def _intervene(self, when: str, operation: str, key: str) -> None:
        if self._damage is not None and (when, operation) == ("after", "create") and self._moment in key:
            damage, self._damage = self._damage, None
            damage(self._objects)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample")
    write_sample(path / "sample.jsonl", 60, broken=True)
    return path


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardline_common.runtime.read_again.PAUSES", (0.01, 0.02))
    for name, seconds in {
        "shardline.services.embedded._WATCH_SECONDS": 0.05,
        "shardline_common.runtime.create_or_read._LIMIT_SECONDS": 0.4,
        "shardline_consumer.attempt._AGAIN_SECONDS": 0.5,
        "shardline_consumer.attempt._REJOIN_SECONDS": 0.1,
        "shardline_consumer.partition._IDLE_SECONDS": 0.1,
        "shardline_producer.publication._PUBLISH_AGAIN_SECONDS": 0.3,
        "shardline_producer.attempt._TOPIC_CHECK_SECONDS": 0.1,
    }.items():
        monkeypatch.setattr(name, seconds)


async def run(store: MemoryStore, folder: Path) -> JobView:
    source = source_factory(Settings(), folder, confined=True, remote=None)
    policy = ProducerPolicy(progress_seconds=0.05, publish_seconds=0.3)
    embedded = EmbeddedRun(store, SystemClock(), Metrics(), source, policy, 1 << 28)
    async with asyncio.timeout(SECONDS):
        return (await embedded.run(SPEC, lambda _: None)).view


async def fault_of(store: MemoryStore, folder: Path) -> str:
    """Why a run of the job is wrong; empty when it completes a sound dataset or gives a reason."""
    try:
        state = (await run(store, folder)).state
    except TimeoutError:
        return "it does not end"
    except (JobConflict, JobFailed, JobInvalid) as error:
        return "" if str(error) else "an error without a word"
    if state.state == "completed":
        return "; ".join((await verify(SPEC, store)).problems)
    return "" if state.code not in (None, "internal") and state.message else f"{state.state}, {state.code}"


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_damaged_job_ends_or_says_why_not(
    folder: Path, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    cases = [(name, damage) for name in OBJECTS for damage in DAMAGES]
    at_once = asyncio.Semaphore(8)

    async def wrong(name: str, damage: Callable[[Objects, str], None]) -> str:
        async with at_once:
            store = DamagedStore(MOMENTS[moment], lambda objects: damage(objects, OBJECTS[name]))
            fault = await fault_of(store, folder)
        return f"{name}, {damage.__name__}: {fault}" if fault else ""

    found = await asyncio.gather(*(wrong(name, damage) for name, damage in cases))
    assert [text for text in found if text] == []
    assert "a bug in Shardline" not in caplog.text


UNPUBLISHED = ("_SUCCESS", "manifest.json", "README.md")


@pytest.mark.parametrize(
    ("name", "repair"),
    [
        (LAYOUT.chain_record(1, 28), "restore this object, or delete it and the later ones of its folder"),
        (LAYOUT.chain_record(1, 11), "restore this object, or delete it and the later ones of its folder"),
        (LAYOUT.outcome(1), "restore or delete this object"),
        (LAYOUT.plan, "restore this object"),
    ],
)
async def test_a_damaged_object_of_a_dataset_is_named_with_the_way_on(
    folder: Path, name: str, repair: str
) -> None:
    store = MemoryStore()
    assert (await run(store, folder)).state.state == "completed"
    digest = (await verify(SPEC, store)).digest
    await store.delete([LAYOUT.root + key for key in UNPUBLISHED])
    if name != LAYOUT.outcome(1):
        await store.delete([LAYOUT.outcome(1)])
    whole = await store.get(name)
    await store.delete([name])
    await store.create(name, whole[:100])
    for _ in range(2):
        code, message = await failure_of(store, folder)
        assert code == "dataset_damaged"
        assert name in message
        assert repair in message
    # The way that the message names. A record ends the job in an outcome; the next run is an attempt.
    if repair == "restore this object":
        await store.delete([name])
        await store.create(name, whole)
    else:
        later = [info.key async for info in store.list(name.rpartition("/")[0] + "/") if info.key >= name]
        await store.delete([name] if name == LAYOUT.outcome(1) else later)
    assert (await run(store, folder)).state.state == "completed"
    report = await verify(SPEC, store)
    assert (report.ok, report.digest) == (True, digest)


async def failure_of(store: MemoryStore, folder: Path) -> tuple[str | None, str]:
    """Code and message of a run that fails."""
    try:
        state = (await run(store, folder)).state
    except JobFailed as error:
        return error.code.value, explain(error)
    assert state.state == "failed"
    return state.code, state.message or ""
