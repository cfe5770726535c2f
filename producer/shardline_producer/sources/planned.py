"""Planned sources: what is read from a database is listed first, then fetched in the order of the list.

The list, the plan, lies beside the dataset as numbered create-only parts. A search is ranked whole at
planning. A scan is listed part by part, each fixed before any of its documents is sent: so every
planned document is read exactly once, whatever is inserted, changed or removed meanwhile, and any
producer goes on from any ordinal.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from secrets import token_hex
from typing import Any, Protocol

import orjson

from shardline_common.job.messages import Position
from shardline_common.job.spec import JobSpec
from shardline_producer.sources.documents import DeadLetterReason, dead_letter
from shardline_producer.sources.source import (
    DeclaredSource,
    Document,
    Frozen,
    InvalidDocument,
    PlanPages,
    SourceItem,
)

_FIRST_PART = 1_000
_LARGEST_PART = 50_000
_PART_BYTES = 4 << 20
_FIRST_FETCH, _FETCH = 64, 500


@dataclass(frozen=True, slots=True)
class Entry:
    """A document to be read. `foreign`: it is known to a search store only, not to the main one."""

    id: str
    score: float = 0.0
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """What a store finds at planning; all of it is JSON and is frozen in the job's plan.

    `facts` are given back to every later call, so that whoever goes on does as the planner did.
    `ranked`: the list is one search, made whole at planning; else it is extended in its own order.
    `columns` and `notes` as in `DeclaredSource`; `estimate` is about how many documents there are.
    """

    facts: Mapping[str, Any]
    ranked: bool = False
    columns: Mapping[str, str] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    estimate: int | None = None


class Fetcher(Protocol):
    """Reads contents over one connection."""

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """The contents of the first entries, in order: of at least one, and of as many as fit into memory.

        A document's relevance is its own score; in a search that of the plan takes its place.
        What was removed or marked deleted since it was planned comes as `vanished(id)`.

        Raises:
            SourceUnavailable: try again later.
            JobFailed: the store refuses for good.
        """


class PlannedStore(Protocol):
    """A database under one job's query."""

    async def describe(self) -> Description:
        """Look at what is there, and check the query against it.

        Raises:
            SourceUnavailable: try again later.
            JobFailed: what the job needs is not there; an unknown filter field, naming those there are.
        """

    def entries(
        self, facts: Mapping[str, Any], after: Entry | None, limit: int | None
    ) -> AsyncGenerator[list[Entry], None]:
        """Up to `limit` entries behind `after`, in pages of bounded size; fewer only at the end.

        Each document once. In a ranked list `after` is always None; else entries come in the order of their
        ids, and one that was removed meanwhile is a valid `after` all the same.
        """

    def fetcher(self, facts: Mapping[str, Any]) -> AbstractAsyncContextManager[Fetcher]:
        """Connect for reading contents; leaving the context closes the connection."""


def vanished(identity: str) -> InvalidDocument:
    """The dead letter of a planned document that is not there any more."""
    return unusable(identity, DeadLetterReason.VANISHED)


def unusable(identity: str, reason: DeadLetterReason, original: bytes = b"") -> InvalidDocument:
    """The dead letter of a planned document that cannot be one; `original` is what there was of it."""
    digest = sha256(original).hexdigest()
    return InvalidDocument(identity, dead_letter(reason, identity, original, digest, len(original)))


@dataclass(frozen=True, slots=True)
class PlanPage:
    """Entries with the ordinals first + 1, first + 2 …; `last`: nothing comes behind them."""

    first: int
    last: bool
    entries: Sequence[Entry]

    @property
    def next(self) -> int:
        """Entries up to the end of this part."""
        return self.first + len(self.entries)

    @property
    def name(self) -> str:
        """The part's name in its folder."""
        return part_name(self.first)

    def encode(self) -> bytes:
        """The part as JSON: columns instead of rows, and only those that say something."""
        value: dict[str, Any] = {
            "first": self.first,
            "last": self.last,
            "ids": [entry.id for entry in self.entries],
        }
        if any(entry.score for entry in self.entries):
            value["scores"] = [entry.score for entry in self.entries]
        if foreign := [place for place, entry in enumerate(self.entries) if entry.foreign]:
            value["foreign"] = foreign
        return orjson.dumps(value)

    @classmethod
    def decode(cls, data: bytes) -> "PlanPage":
        """The part of its JSON."""
        value = orjson.loads(data)
        ids, foreign = value["ids"], set(value.get("foreign", ()))
        scores = value.get("scores") or [0.0] * len(ids)
        entries = [
            Entry(identity, score, place in foreign)
            for place, (identity, score) in enumerate(zip(ids, scores, strict=True))
        ]
        return cls(value["first"], value["last"], entries)


def part_name(first: int) -> str:
    """The name of the part behind that many entries."""
    return f"{first:012d}.json"


def part_size(first: int) -> int:
    """How many entries the part has that begins there: few at first, so that reading starts at once."""
    return min(_LARGEST_PART, max(_FIRST_PART, first))


class PlannedSource:
    """Implements `Source` over a PlannedStore. Positions are (ordinal of the plan,)."""

    def __init__(self, spec: JobSpec, store: PlannedStore, parts: PlanPages) -> None:
        self._top = spec.query.top_k
        self._store = store
        self._parts = parts
        self._count: int | None = None

    async def freeze(self) -> list[dict[str, Any]]:
        """Describe the store; a search is also ranked, into a folder of its own.

        Of two producers that plan at once, the plan that stands names the folder that counts.
        """
        found = await self._store.describe()
        frozen = asdict(found) | {"folder": "", "count": None}
        if found.ranked:
            folder = token_hex(8)
            frozen |= {"folder": folder, "count": await self._rank(found.facts, folder)}
        return [frozen]

    async def _rank(self, facts: Mapping[str, Any], folder: str) -> int:
        first, waiting = 0, list[Entry]()
        async with aclosing(self._store.entries(facts, None, self._top)) as pages:
            async for page in pages:
                waiting += page
                while len(waiting) > (size := part_size(first)):
                    await self._keep(folder, PlanPage(first, False, waiting[:size]))
                    first, waiting = first + size, waiting[size:]
        await self._keep(folder, PlanPage(first, True, waiting))
        return first + len(waiting)

    async def _keep(self, folder: str, part: PlanPage) -> PlanPage:
        name = f"{folder}/{part.name}" if folder else part.name
        return PlanPage.decode(await self._parts.keep(name, part.encode()))

    def declared(self, frozen: Frozen) -> DeclaredSource:
        """What the store told at planning."""
        return DeclaredSource(frozen[0]["columns"], frozen[0]["notes"])

    def check_query(self, fields: Sequence[str]) -> None:
        """Nothing is left to check: the store did it at planning."""

    def sample(self, frozen: Frozen) -> AsyncGenerator[list[SourceItem], None]:
        """The first documents of the plan."""
        return self.read(frozen, None)

    async def read(self, frozen: Frozen, after: Position | None) -> AsyncGenerator[list[SourceItem], None]:
        """Fetch the planned documents behind a position; a scan's plan is extended on the way."""
        done: int = after[-1] if after else 0
        # Few at first: whoever waits for the first document does not wait for the five hundredth.
        size = _FIRST_FETCH
        facts: Mapping[str, Any] = frozen[0]["facts"]
        async with aclosing(self._plan(frozen, done)) as plan, self._store.fetcher(facts) as fetcher:
            async for part in plan:
                while done < part.next:
                    start = done - part.first
                    entries = part.entries[start : start + size]
                    size = min(_FETCH, 2 * size)
                    contents = await fetcher.fetch(entries)
                    if not 0 < len(contents) <= len(entries):
                        raise AssertionError(f"{len(contents)} contents of {len(entries)} entries")
                    yield [
                        _item(done + place, content, entry.score if frozen[0]["ranked"] else None)
                        for place, (content, entry) in enumerate(zip(contents, entries, strict=False), 1)
                    ]
                    done += len(contents)

    def progress(self, frozen: Frozen, position: Position | None) -> float:
        """By the plan's length where it is known, else by the store's estimate."""
        done: int = position[-1] if position else 0
        count: int | None = self._count if self._count is not None else frozen[0]["count"]
        if count is None and frozen[0]["estimate"] is None:
            return 0.0
        # An estimate may be too low: until the plan's end is known, the job is not at its end.
        share = done / max(count, 1) if count is not None else min(0.99, done / max(frozen[0]["estimate"], 1))
        return min(1.0, share)

    async def _plan(self, frozen: Frozen, done: int) -> AsyncGenerator[PlanPage, None]:
        """The parts from the one on that holds the entry behind `done`."""
        folder: str = frozen[0]["folder"]
        names = await self._parts.names(folder)
        wanted = f"{folder}/{part_name(done)}" if folder else part_name(done)
        start = max((place for place, name in enumerate(names) if name <= wanted), default=0)
        part: PlanPage | None = None
        for name in names[start:]:
            part = PlanPage.decode(await self._parts.get(name))
            yield part
        while part is None or not part.last:
            part = await self._extend(frozen[0]["facts"], part)
            yield part
        self._count = part.next

    async def _extend(self, facts: Mapping[str, Any], before: PlanPage | None) -> PlanPage:
        first = before.next if before else 0
        after = before.entries[-1] if before else None
        limit = part_size(first)
        if self._top is not None:
            limit = min(limit, self._top - first)
        entries, size = list[Entry](), 0
        async with aclosing(self._store.entries(facts, after, limit)) as pages:
            async for page in pages:
                entries += page
                size += sum(len(entry.id) for entry in page)
                if size >= _PART_BYTES:
                    break
        whole = size < _PART_BYTES and len(entries) < limit
        last = whole or first + len(entries) == self._top
        return await self._keep("", PlanPage(first, last, entries))


def _item(ordinal: int, content: Document | InvalidDocument, score: float | None) -> SourceItem:
    if isinstance(content, InvalidDocument):
        return SourceItem((ordinal,), content, content.dead_letter.size)
    if score is not None:
        content.relevance = score
    text = content.text
    return SourceItem((ordinal,), content, len(text) if text.isascii() else len(text.encode()))
