"""Which rows there are: pages of keys in the server's order, each held against the rows themselves.

Keys come from the index alone and are complete, but the server cuts them at their last ':'. What is left
leads to no row, or to that of another; so keys and rows must be the same, each once, in rising order.
A short page of keys is the end.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, zip_longest
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.http.client import AnswerTooLarge
from shardline_producer.sources.documents import FieldNames, parse_document
from shardline_producer.sources.planned import Entry
from shardline_producer.sources.source import Document
from shardline_producer.sources.themis.client import Rejected, ThemisClient
from shardline_producer.sources.themis.conditions import Conditions, kept_by_server
from shardline_producer.sources.themis.fanout import in_order
from shardline_producer.sources.themis.queries import (
    MOST_ROWS,
    MissingIndex,
    Row,
    Target,
    keys_of,
    order_key,
    readable,
    rows_of,
)

_ROUNDS = 4
_LOOKED_AT = 4
# One less than there may be, so that one too many can be seen.
_KEYS = MOST_ROWS - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is listed. `keyed`: a row's key is the value of its key column, so it can be read alone."""

    target: Target
    conditions: Conditions
    lossless: bool
    keyed: bool

    @property
    def names(self) -> FieldNames:
        """Where id and text of a row are: the exporter of ThemisDB calls the text `content`."""
        return FieldNames(self.target.key, ("content", "text"))

    def parse(self, text: str, place: str) -> Document | None:
        """The document of a row's text, where it is one."""
        found = parse_document(text.encode("utf-8", "surrogatepass"), place, self.names)
        return found if isinstance(found, Document) else None


class Listing:
    """Lists what a job wants of a table, over one client. `page`: rows of one answer."""

    def __init__(self, client: ThemisClient, wanted: Wanted, page: int, width: int) -> None:
        self._client = client
        self._wanted = wanted
        self._target = wanted.target
        self._page = page
        self._width = width

    async def entries(self, after: str | None, limit: int | None) -> AsyncGenerator[list[Entry], None]:
        """Up to `limit` entries behind the one named `after`, in pages; fewer only at the end."""
        left = limit
        async with aclosing(self.pages(after, limit if self._wanted.conditions.empty else None)) as pages:
            async for page in pages:
                entries = [Entry(row.id or "") for row in await self._chosen(page)]
                entries = entries if left is None else entries[:left]
                if entries:
                    yield entries
                left = None if left is None else left - len(entries)
                if left == 0:
                    return

    async def _chosen(self, page: Sequence[Row]) -> list[Row]:
        if self._wanted.conditions.empty:
            return list(page)
        choices = [self._choice(row) for row in page]
        doubts = [row for row, choice in zip(page, choices, strict=True) if choice is None]
        whole = iter(await in_order([partial(self._looked_up, row.id or "") for row in doubts], self._width))
        return [
            row
            for row, choice in zip(page, choices, strict=True)
            if (next(whole) if choice is None else choice)
        ]

    def _choice(self, row: Row) -> bool | None:
        document = self._wanted.parse(row.text, "")
        if document is None:
            # No document either way: the filters cannot speak about it, and nothing is dropped silently.
            return None if self._wanted.lossless else True
        conditions = self._wanted.conditions
        return conditions.meets_lossy(document) if self._wanted.lossless else conditions.meets(document)

    async def _looked_up(self, identity: str) -> bool:
        if not readable(self._target.table, identity):
            return True
        blob = await self._client.entity(self._target.table, identity)
        if blob is None:
            return False
        document = self._wanted.parse(blob, identity)
        return document is None or self._wanted.conditions.meets(document)

    async def pages(self, after: str | None, most: int | None) -> AsyncGenerator[list[Row], None]:
        """All that the server keeps behind `after`, in order; `most`: as much as the caller will take.

        Raises:
            JobFailed: rows that the server cannot give, or gives in place of others.
        """
        behind, failures = after or "", 0
        limit = _KEYS if most is None else min(_KEYS, max(most, 1))
        while (keys := await self.keys(behind, limit)) and await self._filtered(behind, len(keys)):
            done, problem = 0, await self._misplaced(behind, keys)
            while problem is None and done < len(keys):
                part = keys[done : done + self._page]
                try:
                    rows, problem = await self._compared(behind, part)
                except AnswerTooLarge:
                    self._shrink(len(part))
                    continue
                if problem is None:
                    yield rows
                    behind, failures, done = rows[-1].id or "", 0, done + len(part)
            if problem is None and len(keys) < limit:
                return
            # A row may come or go between two questions; a problem that stays is one.
            failures += problem is not None
            if problem is not None and failures == _ROUNDS:
                raise problem

    def _shrink(self, tried: int) -> None:
        if tried == 1:
            raise self._broken("has a row that is too large for this process")
        self._page = tried // 2

    async def _filtered(self, behind: str, there: int) -> bool:
        """Whether the server still filters: where nothing matches any more, all it gives is of others."""
        predicates = self._target.predicates
        if not predicates:
            return True
        rows = await self.rows(behind, min(there, _LOOKED_AT))
        known = [row.fields for row in rows if row.fields is not None]
        return not known or any(kept_by_server(fields, predicates) for fields in known)

    async def _misplaced(self, behind: str, keys: Sequence[str]) -> JobFailed | None:
        """What is wrong with keys that should be the key column's values, in order, and all there are."""
        if not self._wanted.keyed:
            return None
        if "" in keys or not _rising(behind, keys):
            return self._cut("")
        # Were the last one out of its place, more would lie before it.
        there = await self._until(behind, keys[-1], len(keys) + 1)
        return None if there == list(keys) else self._cut(keys[-1])

    async def _compared(self, behind: str, keys: Sequence[str]) -> tuple[list[Row], JobFailed | None]:
        """The rows of keys, or what is wrong with them."""
        if self._wanted.keyed:
            rows = _named(await self.rows(behind, len(keys), keys[-1]), keys)
            ids = [row.id or "" for row in rows]
            if strange := sorted(set(ids).difference(keys)):
                return [], not_its_key(self._target, strange[0])
            cut = next((key for key, one in zip_longest(keys, ids) if key != one), None)
            return rows, None if cut is None else self._cut(cut)
        rows = await self.rows(behind, len(keys))
        ids = [row.id or "" for row in rows]
        if not all(ids):
            return [], self._broken(f"has a row without a text in '{self._target.key}'")
        there = await self._until(behind, ids[-1], len(keys) + 1) if ids else []
        if twice := next((one for one, other in pairwise(ids) if one == other), None):
            return [], self._broken(f"has more than one row with '{twice}' in '{self._target.key}'")
        whole = len(ids) == len(keys) == len(there) and _rising(behind, ids)
        return rows, None if whole else self._cut("")

    async def _until(self, behind: str, last: str, limit: int) -> list[str]:
        """Keys of the index up to and with a value."""
        return keys_of(await self._query(self._target.page(behind or None, limit, until=last, keys=True)))

    def _broken(self, what: str) -> JobFailed:
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"ThemisDB's table '{self._target.table}' {what}",
            hint="name a column of unique texts as source.key",
        )

    def _cut(self, key: str) -> JobFailed:
        shown = f", such as one that ends in ':{key}'" if key else ""
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"ThemisDB cannot give all rows of '{self._target.table}': some keys hold ':'{shown}, "
            f"or '{self._target.key}' repeats a value",
            hint="store those rows again under keys without ':'",
        )

    async def keys(self, behind: str, limit: int) -> list[str]:
        """Keys of the index behind a value, at most `limit`: fewer only at the end.

        Raises:
            JobFailed: an index is missing; the hint names the calls that make it.
        """
        return keys_of(await self._query(self._target.page(behind or None, limit, keys=True)))

    async def rows(self, behind: str, limit: int, until: str | None = None) -> list[Row]:
        """Rows behind a value, up to and with `until`. Raises AnswerTooLarge."""
        answer = await self._query(self._target.page(behind or None, limit, until=until))
        return rows_of(answer, self._target.key)

    async def window(self, first: str, last: str, limit: int) -> list[Row]:
        """Rows from `first` up to and with `last`. Raises AnswerTooLarge."""
        answer = await self._query(self._target.window(first, last, limit))
        return rows_of(answer, self._target.key)

    async def _query(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._client.query(body)
        except Rejected as error:
            missing = MissingIndex.named_in(str(error))
            if missing is not None:
                raise missing.error(self._target.table) from None
            raise JobFailed(
                FailureCode.SOURCE_INVALID, f"ThemisDB refuses a query of '{self._target.table}': {error}"
            ) from None


def _named(rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    # A row that is no JSON does not tell its key; where none is missing, its place does.
    if len(rows) != len(keys):
        return list(rows)
    return [row if row.id is not None else replace(row, id=key) for row, key in zip(rows, keys, strict=True)]


def _rising(behind: str, values: Sequence[str]) -> bool:
    places = [order_key(behind) if behind else b"", *map(order_key, values)]
    return all(one < other for one, other in pairwise(places))


def not_its_key(target: Target, value: str) -> JobFailed:
    """What to tell where the key column does not hold the keys."""
    return JobFailed(
        FailureCode.SOURCE_INVALID,
        f"ThemisDB has no row '{target.table}:{value}', although '{value}' stands in the column "
        f"'{target.key}': it does not hold the rows' keys, so that no row can be read alone",
        hint="name the column that holds the keys as source.key, or set source.lossless to false",
    )
