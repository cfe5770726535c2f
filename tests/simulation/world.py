"""The environment of a schedule: servers that never fail, processes that do, and a network between them."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from shardline_common.errors import ServiceUnavailable
from shardline_common.job.messages import END, decode_kind_and_sequence
from shardline_common.job.names import Layout, parse_attempt_topic
from shardline_common.job.state import ACTIVE, RETRIABLE
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Message
from tests.simulation.scenario import TOPIC_LOST_LATE, Scenario

T = TypeVar("T")
SESSION = 3.0
FOREIGN = b"# Mine\n"


@dataclass(frozen=True, slots=True)
class Harm:
    """Faults of the network: shares of requests, and the seconds by which slow ones are late."""

    refused: float = 0.0
    lost: float = 0.0
    slow: float = 0.0
    delay: float = 6.0


@dataclass
class World:
    """The state outside of the processes. `trace` is a running digest of all events, to compare two runs."""

    dice: random.Random
    scenario: Scenario
    harm: Harm = field(default_factory=Harm)
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    store: MemoryStore = field(default_factory=MemoryStore)
    down_until: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("broker", "store", "receiver"), 0.0)
    )
    groups: dict[tuple[str, str], Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    delivered: dict[str, bytes] = field(default_factory=dict)
    trace: int = 0
    _given: int = 0
    _objects: dict[str, bytes] = field(default_factory=dict)
    _due: dict[tuple[str, int], int] = field(default_factory=dict)
    _chained: dict[int, int] = field(default_factory=dict)
    _checkpoint: tuple[int, str, int] = (1, "queued", -1)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return asyncio.get_running_loop().time()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something on the servers: the end of a process does not end it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def count(self, what: str) -> None:
        """Count something that happened, and take it into the trace."""
        self.counts[what] = self.counts.get(what, 0) + 1
        self.trace = hash((self.trace, sum(what.encode()), int(self.now * 1e6)))

    def watch_object(self, key: str, data: bytes) -> None:
        """Check that an object is never replaced, and follow the chains."""
        if self._objects.setdefault(key, data) != data:
            self.problems.append(f"{key} was replaced by other bytes")
        if "/_state/chain/" in key:
            record = orjson.loads(data)
            self._chained[record["partition"]] = record["next"]
            self.strike("foreign drop lists")
        if "/_state/outcome-" in key and b'"completed"' in data:
            self.strike("foreign card late")
        if key.startswith(Layout.of(self.scenario.spec).steps):
            self.strike(TOPIC_LOST_LATE)

    def watch_refusal(self, key: str) -> None:
        """Count what two workers decide or assemble."""
        layout = Layout.of(self.scenario.spec)
        if key.startswith((layout.steps, layout.decisions)):
            self.count("decided twice")
        if key.startswith((layout.root + "data/", layout.shard_records)) and self.scenario.spec.assembled:
            self.count("assembled twice")

    def watch_read(self, key: str) -> None:
        """Count the steps of a decision with which a worker goes on."""
        if key.startswith(Layout.of(self.scenario.spec).steps):
            self.count("decision continued")

    @property
    def stage(self) -> str:
        """How far an assembled job is."""
        layout, objects = Layout.of(self.scenario.spec), self.store._objects
        _, name, _ = self._checkpoint
        if name != "completing" or layout.success in objects:
            return "landing" if name == "running" else name
        return "assembling" if layout.decision in objects else "deciding"

    def strike(self, *fates: str) -> None:
        """Do to the job what its fate says, once, if that is one of `fates` and can be done now."""
        fate = self.scenario.fate
        if fate not in fates or self.counts.get(fate):
            return
        layout, objects = Layout.of(self.scenario.spec), self.store._objects
        if self.scenario.foreign:
            if layout.plan in objects and layout.card not in objects:
                objects[layout.card] = FOREIGN
                self.count(fate)
        elif fate == "foreign drop lists":
            if layout.plan in objects and layout.decision not in objects:
                objects |= dict.fromkeys(_drop_lists(layout, self.scenario), FOREIGN)
                self.count(fate)
        elif fate == "late rows":
            if segments := [segment for segment in self.scenario.expected.segments if segment.rows]:
                segment = self.dice.choice(segments)
                objects[layout.staged(segment.partition, segment.first)] = segment.rows
                self.count(fate)
        elif fate == "lost object":
            self._lose_object(layout)
        elif topics := sorted(name for name in self.broker._topics if parse_attempt_topic(name)):
            del self.broker._topics[topics[-1]]
            self.count(fate)

    def _lose_object(self, layout: Layout) -> None:
        objects = self.store._objects
        folders = ("data/", "rejected/", "dead-letters/", "_state/chain/")
        assembled = ("_state/records/", "_state/bands/", "_state/decision/", "_state/shards/")
        prefixes = [layout.root + name for name in (*folders, *assembled)]
        keys = [key for key in objects if key.startswith((*prefixes, layout.staged_rows))]
        # Behind the proof nobody but `verify` looks for objects.
        proven = any(b'"completed"' in objects[key] for key in objects if "/_state/outcome-" in key)
        if keys and not proven:
            key = self.dice.choice(sorted(keys))
            del objects[key]
            self._objects.pop(key, None)
            self.count("lost object")

    def remove_foreign(self, *, lists: bool) -> None:
        """They remove it again. `lists`: drop lists too."""
        layout = Layout.of(self.scenario.spec)
        for key in (layout.card, *(_drop_lists(layout, self.scenario) if lists else ())):
            if self.store._objects.get(key) == FOREIGN:
                del self.store._objects[key]

    def watch_messages(self, topic: str, messages: Sequence[Message]) -> None:
        """Check that the sequences of a partition of an attempt's topic increase by one, and its bound."""
        if parse_attempt_topic(topic) is None:
            return
        self._watch_room(topic, messages)
        for message in messages:
            place = topic, message.partition or 0
            kind, sequence = decode_kind_and_sequence(message.value or b"")
            due = self._due.get(place, sequence)
            if sequence != due:
                self.problems.append(
                    f"{topic}/{message.partition}: sequence {sequence} was sent where {due} was due"
                )
            self._due[place] = sequence + (kind != END)

    def _watch_room(self, topic: str, messages: Sequence[Message]) -> None:
        # The producer has checked the room before it encoded these messages: they do not count.
        spec, waiting = self.scenario.spec, 0
        room = self.scenario.room // spec.slices
        own = (messages[0].partition or 0) // spec.slice_partitions
        for number, scanned in enumerate(self.scenario.expected.scanned):
            if number // spec.slice_partitions != own:
                continue
            sent, chained = self._due.get((topic, number), 0), self._chained.get(number, 0)
            last = len(scanned) - 1
            waiting += max(0, scanned[min(sent, last)] - scanned[min(chained, last)])
        if waiting >= room and decode_kind_and_sequence(messages[0].value or b"")[0] != END:
            self.problems.append(f"{topic}: more was sent while {waiting} of {room} bytes were in no chain")
        if waiting >= room // 2:
            self.count("topic half full")

    def watch_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Check that an ended attempt keeps its end, and that attempts follow each other."""
        attempt, name, offset = self._checkpoint
        blocked = state["state"] in ACTIVE and state["code"] is not None
        new = (state["attempt"], "blocked" if blocked else state["state"], state["request_offset"])
        self._checkpoint = new
        if new[0] == attempt and name in (*RETRIABLE, "completed") and new[1] != name:
            self.problems.append(f"attempt {attempt} was {name}, and became {new[1]}")
        if new[0] not in (attempt, attempt + 1) or (new[0] > attempt and name not in (*RETRIABLE, "blocked")):
            self.problems.append(f"attempt {new[0]} was opened while attempt {attempt} was {name}")
        if new[2] < offset:
            self.problems.append(f"the handled requests went back from {offset} to {new[2]}")

    def receive(self, message_id: str, body: bytes, *, whole: bool) -> None:
        """Check that deliveries of a notification are equal, and come after the dataset is complete."""
        self.count("deliveries")
        if self.delivered.setdefault(message_id, body) != body:
            self.problems.append(f"{message_id} was delivered with two bodies")
        if not whole:
            self.problems.append(f"{message_id} was delivered before the dataset was complete")

    def number(self) -> int:
        """A new number."""
        self._given += 1
        return self._given

    def heal(self) -> None:
        """End all faults."""
        self.harm = Harm()
        self.down_until = dict.fromkeys(self.down_until, 0.0)


def _drop_lists(layout: Layout, scenario: Scenario) -> list[str]:
    """The keys of the drop lists of all shards."""
    shards = {} if scenario.assembled is None else scenario.assembled.shards
    return [layout.drops(split, number) for split, number in shards]


class Process:
    """One producer or worker: it can be killed, ended, and stopped for a while."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.ending = False
        self.stopped_until = 0.0
        self.task: asyncio.Task[None] | None = None
        self.on_silence: list[Callable[[], None]] = []

    @property
    def running(self) -> bool:
        """Whether it was started and not ended."""
        return not self.ending and self.task is not None and not self.task.done()

    def kill(self) -> None:
        """SIGKILL: the process sends no more requests; those that were sent still arrive."""
        self.world.count("kill")
        self.alive = False
        self._end()
        asyncio.get_running_loop().call_later(SESSION, self._silent)

    def end(self) -> None:
        """SIGTERM: the process may shut down in order."""
        self.world.count("end")
        self._end()

    def _end(self) -> None:
        self.ending = True
        if self.task is not None:
            self.task.cancel()

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after `seconds`: it passes no request or answer until then."""
        self.world.count("stop")
        self.stopped_until = self.world.now + seconds
        if seconds > SESSION:
            asyncio.get_running_loop().call_later(SESSION, self._silent)

    def _silent(self) -> None:
        # The session is over: its groups go on without it.
        for callback in tuple(self.on_silence):
            callback()

    async def gate(self) -> None:
        """Wait while the process is stopped; raise CancelledError if it was killed."""
        while (left := self.stopped_until - self.world.now) > 0 and self.alive:
            await asyncio.sleep(left)
        if not self.alive:
            raise asyncio.CancelledError

    async def request(
        self, server: str, apply: Callable[[], Awaitable[T]], failure: type[ServiceUnavailable]
    ) -> T:
        """Send a request. It may be refused, late, or applied after a kill; its response may be lost."""
        await self.gate()
        world, dice, harm = self.world, self.world.dice, self.world.harm
        if world.down_until[server] > world.now or dice.random() < harm.refused:
            await asyncio.sleep(0.01)
            await self.gate()
            raise failure(f"{server} does not answer")
        late = dice.uniform(0, harm.delay) if dice.random() < harm.slow else dice.uniform(0, 0.004)
        served = world.spawn(_serve(apply, late))
        served.add_done_callback(_forget)
        lost = dice.random() < harm.lost
        try:
            result = await asyncio.shield(served)
        except ServiceUnavailable:
            raise
        except Exception:
            await self.gate()
            if lost:
                raise failure(f"the answer of {server} was lost") from None
            raise
        await self.gate()
        if lost:
            world.count(f"lost {server}")
            raise failure(f"the answer of {server} was lost")
        return result


async def _serve(apply: Callable[[], Awaitable[T]], late: float) -> T:
    await asyncio.sleep(late)
    return await apply()


def _forget(served: asyncio.Task[Any]) -> None:
    if not served.cancelled():
        served.exception()
