"""The oracle: what must hold when a job of the simulation has ended, however it went."""

import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import zstandard

from shardline_common.dataset.chain import ChainRecord
from shardline_common.dataset.decision import DecisionHead
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.verify import Verifier
from shardline_common.errors import ObjectMissing
from shardline_common.job.names import DEAD_LETTERS, JOBS, STAGED, Layout
from shardline_common.job.outcome import read_outcome
from shardline_common.job.state import JobState
from shardline_common.memory.store import MemoryStore
from tests.simulation.assembled import Assembled
from tests.simulation.expected import Segment
from tests.simulation.world import FOREIGN, World

_LOSSES = {"object_lost", "conservation", "sequence_gap"}
_REFUSALS = {"refused_request", "not_retriable", "unknown_job"}


class Judge:
    """Compares what a job left with what its scenario says. Problems are added to those of the world."""

    def __init__(self, world: World, state: JobState) -> None:
        self._world = world
        self._scenario = world.scenario
        self._state = state
        self._store = MemoryStore.copy_of(world.store)
        self._layout = Layout.of(state.spec)

    def _problem(self, text: str) -> None:
        self._world.problems.append(text)

    async def run(self) -> str:
        """Judge everything. Returns the digest of a completed dataset, else ""."""
        state, scenario = self._state, self._scenario
        failures = scenario.failures
        wanted = "failed" if failures else "completed"
        cancelled = scenario.stays_cancelled and state.state == "cancelled"
        lost = scenario.fate == "lost object" and state.state == "failed" and state.code in _LOSSES
        if state.state != wanted and not cancelled and not lost:
            self._problem(f"the job is {state.state} instead of {wanted}: {state.code}: {state.message}")
        if state.state == "failed" and state.code not in failures and not lost:
            self._problem(f"failed: {state.code}: {state.message}")
        chained = [await self._chain(number) for number in range(len(scenario.expected.partitions))]
        completed = state.state == "completed"
        await self._check_objects()
        self._check_dead_letters(chained, complete=completed)
        await self._check_attempts()
        if scenario.assembled is not None:
            await self._check_staged(scenario.assembled)
            await self._check_drops(scenario.assembled)
        if not completed:
            await self._check_absent()
            return ""
        if chained != [sum(len(s.entries) for s in part) for part in scenario.expected.partitions]:
            self._problem(f"the chains end at {chained}")
        return await self._check_dataset()

    async def _chain(self, number: int) -> int:
        """Compare the segments of a partition with the expected ones. Returns where its chain ends."""
        expected = self._scenario.expected.partitions[number]
        end = 0
        async for record in _records(self._store, self._layout, number):
            segment = next((item for item in expected if item.first == record.first), None)
            end = record.next
            if segment is None:
                self._problem(f"partition {number}: no segment begins at {record.first}")
                continue
            self._compare(segment, record)
        return end

    def _compare(self, segment: Segment, record: ChainRecord) -> None:
        totals = record.segment
        found = {
            name: getattr(record if hasattr(record, name) else totals, name) for name in segment.facts()
        } | {"position": list(record.position)}
        for name, value in segment.facts().items():
            if found[name] != value:
                self._problem(
                    f"segment {record.partition}/{record.first}: {name} is {found[name]} instead of {value}"
                )

    async def _check_objects(self) -> None:
        """Every object of a segment holds exactly what its documents make; none is missing."""
        layout, assembled = self._layout, self._scenario.assembled
        wanted = self._segment_rows() if assembled is None else self._final_shards(assembled)
        for segment in self._scenario.expected.segments:
            if segment.rejected:
                wanted[layout.rejected(segment.partition, segment.first)] = segment.rejected
            if segment.dead_letters:
                wanted[layout.dead_letters(segment.partition, segment.first)] = segment.dead_letters
        found = {}
        for folder in ("data/", "rejected/", "dead-letters/"):
            async for info in self._store.list(layout.root + folder):
                found[info.key] = _plain(await self._store.get(info.key), layout.compression)
        for key in sorted(found):
            if found[key] != wanted.get(key):
                self._problem(f"{key} holds {found[key][:200]!r} instead of {wanted.get(key, b'')[:200]!r}")
        if self._state.state == "completed" and (missing := sorted(wanted.keys() - found.keys())):
            self._problem(f"missing: {missing}")

    def _segment_rows(self) -> dict[str, bytes]:
        segments = self._scenario.expected.segments
        return {
            self._layout.data(one.split, one.partition, one.first): one.rows for one in segments if one.rows
        }

    def _final_shards(self, assembled: Assembled) -> dict[str, bytes]:
        shards = assembled.shards if assembled.refusal is None else {}
        return {
            self._layout.shard(split, number, assembled.count(split)): rows
            for (split, number), rows in shards.items()
        }

    async def _check_staged(self, assembled: Assembled) -> None:
        """Staged rows are those of their segment. A retry has them; none is left when no retry will come."""
        layout, spec = self._layout, self._state.spec
        found = {info.key: await self._store.get(info.key) async for info in self._store.list(STAGED)}
        needed = self._state.state != "completed" or spec.output.keep_staged
        if found and not needed:
            self._problem(f"staged objects are left over: {sorted(found)}")
        for segment in assembled.landed.segments:
            key = layout.staged(segment.partition, segment.first)
            rows = found.get(key)
            if rows is not None and rows != segment.rows:
                self._problem(f"{key} holds {rows[:200]!r} instead of {segment.rows[:200]!r}")
            committed = layout.chain_record(segment.partition, segment.first) in self._store._objects
            if needed and committed and segment.rows and rows is None and not self._scenario.fate:
                self._problem(f"{key} is missing, and a retry needs it")

    async def _check_drops(self, assembled: Assembled) -> None:
        """Each row that is dropped is in one drop list, with its reason and what stays instead."""
        found: dict[int, tuple[str, int | str | None]] = {}
        async for info in self._store.list(f"{self._layout.decisions}drops/"):
            body = await self._store.get(info.key)
            for line in body.splitlines() if body != FOREIGN else ():
                position, reason, of = json.loads(line)
                if position in found:
                    self._problem(f"{info.key} drops {position}, which another list drops too")
                found[position] = reason, of
        try:
            head = DecisionHead.decode(await self._store.get(self._layout.decision))
        except ObjectMissing:
            return
        if assembled.refusal is not None:
            self._problem(f"there is a decision, which {assembled.refusal} forbids")
        elif found != assembled.drops:
            self._problem(f"the decision drops {found} instead of {assembled.drops}")
        counts = Counter(reason for reason, _ in assembled.drops.values())
        if counts != {reason: one.records for reason, one in head.dropped.items()}:
            self._problem(f"the decision counts {head.dropped} instead of {counts}")

    def _check_dead_letters(self, chained: Sequence[int], *, complete: bool) -> None:
        """The topic has each dead letter of the chains once, by its key, and no other."""
        prefix = f"{self._state.spec.job_id}/".encode()
        found: dict[bytes, bytes] = {}
        for log in self._world.broker.topic(DEAD_LETTERS).logs:
            for record in log.records:
                key, value = record.key or b"", record.value or b""
                if key.startswith(prefix):
                    if found.setdefault(key, value) != value:
                        self._problem(f"the dead letter {key!r} has two contents")
                elif json.loads(value)["reason"] not in _REFUSALS:
                    self._problem(f"{key!r} was refused: {value!r}")
        for (partition, sequence), wanted in self._scenario.expected.dead_letters.items():
            key = b"%s%d/%d" % (prefix, partition, sequence)
            letter = json.loads(found.pop(key, b"{}"))
            if not letter and (complete or sequence < chained[partition]):
                self._problem(f"the dead letter {key!r} is missing in its topic")
            different = {name for name, value in wanted.items() if letter and letter.get(name) != value}
            if different:
                self._problem(f"the dead letter {key!r} has another {sorted(different)}")
        if found:
            self._problem(f"dead letters of no document: {sorted(found)}")

    async def _check_attempts(self) -> None:
        """Each further attempt has a retry of its own, and each cancelled one a cancel behind that."""
        state, requests, opened = self._state, _requests(self._world), -1
        previous = "undecided"
        for attempt in range(1, state.attempt + 1):
            outcome = await read_outcome(self._store, self._layout, attempt)
            ending = outcome.ending if outcome else "undecided"
            if attempt > 1:
                # A cancel ends a completed job that cannot be published by an attempt of its own.
                openers = (
                    ("retry", "cancel") if (previous, ending) == ("completed", "cancelled") else ("retry",)
                )
                behind = [offset for offset, action in requests if action in openers and offset > opened]
                if not behind:
                    self._problem(f"nobody asked for attempt {attempt}")
                    return
                opened = behind[0]
            # Two attempts may share one: after a crash, a producer handles again what no checkpoint covers.
            if ending == "cancelled" and not any(
                action == "cancel" and offset >= opened for offset, action in requests
            ):
                self._problem(f"attempt {attempt} was cancelled, but nobody asked for it since it was opened")
            last = attempt == state.attempt
            before = ("cancelled", "failed", "completed") if self._scenario.fate else ("cancelled", "failed")
            if (last and ending != state.state) or (not last and ending not in before):
                self._problem(f"the outcome of attempt {attempt} is {ending}, the job is {state.state}")
            previous = ending

    async def _check_absent(self) -> None:
        """A dataset that is not completed has no `_SUCCESS`, and nothing else that was published.

        What an attempt published that could not be published as a whole stays.
        """
        layout = self._layout
        published = (
            (layout.success,) if self._scenario.fate else (layout.manifest, layout.card, layout.success)
        )
        for key in published:
            async for info in self._store.list(key):
                self._problem(f"{info.key} exists in a dataset that is not completed")

    async def _check_dataset(self) -> str:
        report = await Verifier(self._store, self._layout.root).run()
        self._world.problems += report.problems
        digest = self._scenario.digest
        if report.digest != digest:
            self._problem(f"the digest is {report.digest} instead of {digest}")
        manifest = Manifest.decode(await self._store.get(self._layout.manifest))
        count = len(self._scenario.items)
        if (manifest.digest, manifest.source.count) != (digest, count):
            self._problem(
                f"the manifest says {manifest.source.count} of {count} documents, {manifest.digest}"
            )
        return report.digest


async def _records(store: MemoryStore, layout: Layout, number: int) -> AsyncIterator[ChainRecord]:
    # Not by `Chain.records`: a broken chain must not end the comparison.
    async for info in store.list(layout.chain(number)):
        yield ChainRecord.decode(await store.get(info.key))


def _requests(world: World) -> list[tuple[int, str]]:
    """Offset and action of each request."""
    records = [record for log in world.broker.topic(JOBS).logs for record in log.records]
    bodies = [(record.offset, json.loads(record.value or b"{}")) for record in records]
    return [(offset, body["action"]) for offset, body in bodies if "action" in body]


def _plain(data: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.decompress(data)
    if compression == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return data
