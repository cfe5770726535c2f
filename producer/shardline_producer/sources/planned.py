"""Planned sources: the ids in a database are listed first, then read in the order of the list.

The list is the plan. It is stored beside the dataset as numbered create-only pages. A search is ranked to
its end at planning. A scan is listed page by page, and a page is stored before any of its documents is
yielded. So every planned document is read exactly once, whatever is inserted, changed or removed in the
database, and any producer can continue from any ordinal.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from secrets import token_hex
from typing import Any, TypeVar, cast

import orjson

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.findings import Findings
from shardline_common.job.messages import Position
from shardline_common.job.spec import JobSpec
from shardline_common.runtime.threads import run_in_thread
from shardline_common.runtime.waits import log_wait
from shardline_producer.sources.planned_items import is_vanished, item_of, rendered_items
from shardline_producer.sources.planned_store import (
    Description,
    Entry,
    Fetcher,
    PlannedStore,
    RenderingFetcher,
)
from shardline_producer.sources.source import (
    Cuts,
    DeclaredSource,
    Frozen,
    Part,
    PlanPages,
    Render,
    RenderedItem,
    SingleItem,
    SourceItem,
)
from shardline_producer.sources.stored_pages import page_name, read_page

_FIRST_PAGE = 1_000
_LARGEST_PAGE = 50_000
_PAGE_BYTES = 4 << 20
_FIRST_FETCH, _LARGEST_FETCH = 64, 500
# So many planned documents that vanish at once are a reason to ask whether the store itself still stands.
_VANISHED_WAVE = 10
Item = TypeVar("Item", SourceItem, SingleItem)
_RESTORE = "restore this object and retry the job, or submit the job under a new id"


@dataclass(frozen=True, slots=True)
class PlanPage:
    """One page of the plan. Its entries have the ordinals `first` + 1, `first` + 2 and so on.

    `last`: the list ends with this page. `findings` are those of the whole list up to its end, as JSON.
    """

    first: int
    last: bool
    entries: Sequence[Entry]
    findings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def next(self) -> int:
        """The number of entries of the plan up to the end of this page."""
        return self.first + len(self.entries)

    @property
    def name(self) -> str:
        """The page's name in its folder."""
        return page_name(self.first)

    def encode(self) -> bytes:
        """The page as JSON: one list per field; a field that is the default of all entries is left out."""
        value: dict[str, Any] = {
            "first": self.first,
            "last": self.last,
            "ids": [entry.id for entry in self.entries],
        }
        scores = [entry.score for entry in self.entries]
        if any(scores):
            value["scores"] = scores
        if foreign := [index for index, entry in enumerate(self.entries) if entry.foreign]:
            value["foreign"] = foreign
        if self.findings:
            value["findings"] = self.findings
        return orjson.dumps(value)

    @classmethod
    def decode(cls, data: bytes, name: str) -> "PlanPage":
        """The page of `encode`, which is stored under `name`.

        Raises:
            JobFailed: the bytes are no page of this name (`dataset_damaged`).
        """
        try:
            value = orjson.loads(data)
            ids, foreign = value["ids"], set(value.get("foreign", ()))
            scores = value.get("scores") or [0.0] * len(ids)
            entries = [
                Entry(identity, score, index in foreign)
                for index, (identity, score) in enumerate(zip(ids, scores, strict=True))
            ]
            page = cls(value["first"], value["last"], entries, value.get("findings", {}))
            own_name = page.name
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"the plan page {name} cannot be read: {type(error).__name__}: {error}"
            raise JobFailed(FailureCode.DATASET_DAMAGED, message, hint=_RESTORE) from None
        if own_name != name.rpartition("/")[2]:
            message = f"the plan page {name} begins with entry {page.first}"
            raise JobFailed(FailureCode.DATASET_DAMAGED, message, hint=_RESTORE)
        return page


def page_size(first: int) -> int:
    """The number of entries of the page that begins behind `first` entries.

    Pages grow from 1,000 to 50,000 entries: the first is listed quickly, and a million ids need few objects.
    """
    return min(_LARGEST_PAGE, max(_FIRST_PAGE, first))


class PlannedSource:
    """Implements `Source` over a PlannedStore. A position is (ordinal in the plan,).

    The frozen part is one object: the store's Description, the folder of the pages, and for a search the
    number of entries.
    """

    def __init__(self, spec: JobSpec, store: PlannedStore, pages: PlanPages) -> None:
        self._top = spec.query.top_k
        self._store = store
        self._pages = pages
        self._count: int | None = None
        self._findings: Mapping[str, Any] = {}

    async def describe(self) -> Description:
        """Check the job's query against the store; nothing is listed. Raises as `PlannedStore.describe`."""
        return await self._store.describe()

    async def freeze(self) -> list[dict[str, Any]]:
        """Describe the store, and rank a search into a new folder.

        When two producers plan at the same time, both rank. The stored plan names the folder that is used.
        """
        found = await self._store.describe()
        frozen = asdict(found) | {"folder": "", "count": None}
        if found.ranked:
            folder = token_hex(8)
            frozen |= {"folder": folder, "count": await self._rank(found.facts, folder)}
        return [frozen]

    async def _rank(self, facts: Mapping[str, Any], folder: str) -> int:
        first, waiting, findings = 0, list[Entry](), Findings()
        async with aclosing(self._store.entries(facts, None, self._top, findings)) as batches:
            async for batch in batches:
                waiting += batch
                while len(waiting) > (size := page_size(first)):
                    await self._create_or_get(folder, PlanPage(first, False, waiting[:size]))
                    first, waiting = first + size, waiting[size:]
        await self._create_or_get(folder, PlanPage(first, True, waiting, findings.to_json()))
        return first + len(waiting)

    async def _create_or_get(self, folder: str, page: PlanPage) -> PlanPage:
        name = f"{folder}/{page.name}" if folder else page.name
        own = page.encode()
        body = await self._pages.create_or_get(name, own)
        return page if body == own else await self._stored(name)

    async def _stored(self, name: str) -> PlanPage:
        return await read_page(self._pages, name, PlanPage.decode, _lost)

    def declared(self, frozen: Frozen) -> DeclaredSource:
        """Columns and notes of the store's Description."""
        found = frozen[0]
        return DeclaredSource(found["columns"], found["notes"], found.get("without_column", 0))

    def check_query(self, fields: Sequence[str]) -> None:
        """Check nothing: `PlannedStore.describe` has checked the query."""

    def sample(self, frozen: Frozen) -> AsyncGenerator[list[SourceItem], None]:
        """The first documents of the plan."""
        return self.read(frozen, None)

    async def cut(self, frozen: Frozen, slices: int) -> Cuts:
        """Ranges of the list, which is completed first. Each has the findings that are its own.

        A ranking is one range, and so is what `query.top_k` cuts off: both are counted from the start.
        """
        if (reason := self._why_whole(frozen)) is not None:
            return Cuts([{}], reason)
        count = 0
        with log_wait("the list of documents, which is completed", lambda: f"{count:,} ids"):
            async with aclosing(self._plan(frozen, 0)) as pages:
                async for page in pages:
                    count = page.next
        many = max(1, min(slices, count))
        reason = f"only {count:,} documents match" if many < slices else ""
        if many == 1:
            return Cuts([{}], reason)
        edges = [count * number // many for number in range(many + 1)]
        # What was left out is counted once, where the findings of all ranges are added up.
        own = {name: value for name, value in self._findings.items() if name == "completeness"}
        ranges = [{"first": first, "end": end, "findings": own} for first, end in pairwise(edges)]
        ranges[-1]["findings"] = dict(self._findings)
        return Cuts(ranges, reason)

    def _why_whole(self, frozen: Frozen) -> str | None:
        if frozen[0]["ranked"]:
            return "a search is read in the order of its ranking"
        if self._top is not None:
            return "query.top_k counts documents from the start of the list"
        return self._store.why_whole

    async def read(
        self,
        frozen: Frozen,
        after: Position | None,
        part: Part | None = None,
    ) -> AsyncGenerator[list[SourceItem], None]:
        """Read the planned documents behind a position. A scan lists further pages when it reaches them."""
        ranked = frozen[0]["ranked"]

        async def fetch(fetcher: Fetcher, entries: Sequence[Entry], first: int) -> list[SourceItem]:
            contents = await fetcher.fetch(entries)
            return [
                item_of(ordinal, content, entry.score if ranked else None)
                for ordinal, (content, entry) in enumerate(zip(contents, entries, strict=False), first)
            ]

        async with aclosing(self._read(frozen, after, part, fetch)) as batches:
            async for batch in batches:
                yield batch

    async def read_rendered(
        self, frozen: Frozen, after: Position | None, part: Part | None, render: Render
    ) -> AsyncGenerator[list[SingleItem], None]:
        """Implements `RenderingSource`."""
        ranked = frozen[0]["ranked"]

        async def fetch(fetcher: Fetcher, entries: Sequence[Entry], first: int) -> list[SingleItem]:
            if isinstance(fetcher, RenderingFetcher):
                contents = await fetcher.fetch_rendered(entries, first, render, ranked=ranked)
            else:
                contents = [*await fetcher.fetch(entries)]
            scores = [entry.score if ranked else None for entry in entries]
            if all(isinstance(content, RenderedItem) for content in contents):
                return cast("list[SingleItem]", contents)
            return await run_in_thread(partial(rendered_items, contents, scores, first, render))

        async with aclosing(self._read(frozen, after, part, fetch)) as batches:
            async for batch in batches:
                yield batch

    async def _read(
        self,
        frozen: Frozen,
        after: Position | None,
        part: Part | None,
        fetch: "Callable[[Fetcher, Sequence[Entry], int], Awaitable[list[Item]]]",
    ) -> AsyncGenerator[list[Item], None]:
        before, end = (part["first"], part["end"]) if part else (0, None)
        done: int = before + (after[-1] if after else 0)
        # The first fetches are small, so that the first document does not wait for 500 others.
        size = _FIRST_FETCH
        facts = frozen[0]["facts"]
        async with aclosing(self._plan(frozen, done, end)) as pages, self._store.fetcher(facts) as fetcher:
            async for page in pages:
                last = page.next if end is None else min(page.next, end)
                while done < last:
                    start = done - page.first
                    entries = page.entries[start : min(start + size, last - page.first)]
                    size = min(_LARGEST_FETCH, 2 * size)
                    items = await fetch(fetcher, entries, done - before + 1)
                    if not 0 < len(items) <= len(entries):
                        raise AssertionError(f"{len(items)} contents of {len(entries)} entries")
                    if len(items) >= _VANISHED_WAVE and all(map(is_vanished, items)):
                        await self._store.check_standing(facts)
                    yield items
                    done += len(items)
        if part:
            self._findings = part["findings"]

    def progress(
        self,
        frozen: Frozen,
        position: Position | None,
        part: Part | None = None,
    ) -> float:
        """The share of the plan's length if it is known, else of the store's estimate."""
        done: int = position[-1] if position else 0
        if part:
            length: int = part["end"] - part["first"]
            return min(1.0, done / length)
        count: int | None = self._count if self._count is not None else frozen[0]["count"]
        if count is None and frozen[0]["estimate"] is None:
            return 0.0
        # An estimate may be too low: while the end of the plan is not known, the share stays below 1.
        share = done / max(count, 1) if count is not None else min(0.99, done / max(frozen[0]["estimate"], 1))
        return min(1.0, share)

    def findings(self, frozen: Frozen) -> Findings:  # noqa: ARG002 - the plan pages have them
        """What the store noted while the plan was listed."""
        return Findings.of(self._findings)

    async def _plan(
        self, frozen: Frozen, done: int, end: int | None = None
    ) -> AsyncGenerator[PlanPage, None]:
        """The pages of the plan, from the one that holds entry done + 1 to the one of entry `end`.

        With `end`, all of them were stored at planning. None: to the last, and what is missing is listed.
        """
        # 1. The stored pages. Pages differ in length: entry `done` is in the last page whose name is not
        #    behind that of `done`.
        folder, count = frozen[0]["folder"], frozen[0]["count"]
        names = await self._pages.names(folder)
        highest = f"{folder}/{page_name(done)}" if folder else page_name(done)
        start = max((index for index, name in enumerate(names) if name <= highest), default=0)
        page: PlanPage | None = None
        for name in names[start:]:
            found = await self._stored(name)
            # Without the entries of a lost page, those behind it would take its ordinals.
            if found.first > done if page is None else found.first != page.next:
                raise _lost(page_name(page.next if page else 0), folder)
            page = found
            yield page
            if end is not None and page.next >= end:
                return
        reached = page.next if page else 0
        # Another list than that of the other slices would repeat documents or lose them.
        if end is not None or reached < done:
            raise _lost(page_name(reached), folder)
        if folder and (page is None or not page.last or reached != count):
            raise _lost(page_name(reached), folder)
        # 2. While the last page is not stored, list and store the next page. If another producer has stored
        #    it first, that page is used.
        while page is None or not page.last:
            page = await self._create_or_get("", await self._list_page(frozen[0]["facts"], page))
            yield page
        # 3. Now the length of the plan is known.
        self._count, self._findings = page.next, page.findings

    async def _list_page(self, facts: Mapping[str, Any], before: PlanPage | None) -> PlanPage:
        first = before.next if before else 0
        after = before.entries[-1] if before else None
        limit = page_size(first)
        if self._top is not None:
            limit = min(limit, self._top - first)
        entries, size = list[Entry](), 0
        findings = Findings.of(before.findings if before else {})
        async with aclosing(self._store.entries(facts, after, limit, findings)) as batches:
            async for batch in batches:
                entries += batch
                size += sum([len(entry.id) for entry in batch])
                if size >= _PAGE_BYTES:
                    break
        ended = size < _PAGE_BYTES and len(entries) < limit
        last = ended or first + len(entries) == self._top
        return PlanPage(first, last, entries, findings.to_json())


def _lost(name: str, folder: str = "") -> JobFailed:
    where = f"{folder}/{name}" if folder else name
    return JobFailed(
        FailureCode.OBJECT_LOST, f"the plan page {where} was stored and is not in the store", hint=_RESTORE
    )
