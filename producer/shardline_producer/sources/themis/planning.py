"""What a job finds in ThemisDB before its first row: indexes, fields, columns, and how long it will take."""

from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.http.client import AnswerTooLarge
from shardline_common.job.columns import infer
from shardline_common.job.spec import JobSpec, ThemisSource
from shardline_producer.sources.planned import Description
from shardline_producer.sources.query_filters import check_filters
from shardline_producer.sources.source import Document
from shardline_producer.sources.themis.client import Rejected, ThemisClient
from shardline_producer.sources.themis.conditions import Conditions
from shardline_producer.sources.themis.fanout import in_order
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.listing import Listing, Wanted, not_its_key
from shardline_producer.sources.themis.queries import (
    MOST_ROWS,
    MissingIndex,
    Target,
    keys_of,
    order_key,
    readable,
)

_SAMPLE_ROWS = 10_000
_SAMPLE_BYTES = 16 << 20
_WHOLE = 50
_HOUR = 3600.0
# Measured over one connection, where nothing limits the requests.
_ROWS_PER_SECOND = 3500.0
_MOST_COUNTS = 100
_SHOWN = 3
_PROBED = 10


@dataclass(frozen=True, slots=True)
class Reach:
    """How to ask: one client, its limit, rows of an answer, requests at once."""

    client: ThemisClient
    limiter: RateLimiter
    page: int
    width: int

    def listing(self, wanted: Wanted) -> Listing:
        """A listing over this client."""
        return Listing(self.client, wanted, self.page, self.width)


@dataclass(frozen=True, slots=True)
class _Sample:
    documents: Sequence[Document]
    whole: bool


class Planner:
    """Looks at a table once, for `describe`."""

    def __init__(self, reach: Reach, spec: JobSpec, source: ThemisSource) -> None:
        self._reach = reach
        self._top = spec.query.top_k
        self._source = source
        self._conditions = Conditions.of(source, spec.query)
        self._table = Target(source.table, source.key, {})
        everything = replace(self._conditions, equal={}, since=None, until=None, filters={})
        self._everything = Wanted(self._table, everything, lossless=False, keyed=True)

    async def describe(self) -> Description:
        """Facts, columns and estimate.

        Raises:
            JobFailed: an index or the table is missing, a filter names no field, or reading without loss
                would take over an hour and nobody said that it should.
        """
        keys = await self._first_keys()
        keyed = await self._keyed(keys)
        listed = await self._check_listed(keys, keyed=keyed)
        await self._check_fields()
        target = replace(self._table, predicates=await self._predicates())
        wanted = Wanted(target, self._conditions, self._source.lossless is not False, keyed)
        sample = await self._sample(wanted)
        count = await self._count(wanted, sample)
        return Description(
            {"predicates": dict(target.predicates), "lossless": wanted.lossless, "keyed": keyed},
            columns=infer(await self._made_whole(wanted, sample)).to_json(),
            notes={"table": target.table, "lossless": wanted.lossless, "index": listed},
            estimate=count,
        )

    async def _first_keys(self) -> list[str]:
        try:
            return await self._reach.listing(self._everything).keys("", MOST_ROWS)
        except JobFailed:
            # Without its index a table that is there cannot be told from one that is not.
            if await self._all_keys() != []:
                raise
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"ThemisDB has no row in a table '{self._source.table}': it answers the same for a table "
                "that does not exist",
                hint="check source.table",
            ) from None

    async def _all_keys(self) -> list[str] | None:
        """The keys of all rows, indexed or not; None: more than an answer may hold."""
        body = {"table": self._source.table, "allow_full_scan": True, "return": "keys"}
        try:
            return keys_of(await self._reach.client.query(body))
        except AnswerTooLarge:
            return None

    async def _keyed(self, keys: Sequence[str]) -> bool:
        """Whether the key column holds the rows' keys, by the first row that can be read.

        Raises:
            JobFailed: it does not, and the job reads rows one by one.
        """
        if not keys:
            return True
        rows = await self._reach.listing(self._everything).rows("", min(len(keys), 10))
        ids = [row.id for row in rows if row.id is not None]
        keyed = not ids or not set(ids).isdisjoint(keys)
        if not keyed and self._source.lossless is not False:
            raise not_its_key(self._table, ids[0])
        return keyed

    async def _check_listed(self, keys: Sequence[str], *, keyed: bool) -> str:
        """Rows that the index does not list would be missing without a word. How closely it was looked at."""
        everything = await self._all_keys()
        if len(keys) == MOST_ROWS:
            if everything is None or not keyed:
                return "unchecked"
            spread = everything[:: max(1, len(everything) // _PROBED)]
            calls = [partial(self._is_listed, key) for key in spread]
            listed = await in_order(calls, self._reach.width)
            self._refuse_unlisted([key for key, there in zip(spread, listed, strict=True) if not there], "")
            return "sampled"
        if everything is None:
            raise self._unlisted("rows", "")
        if missing := Counter(everything) - Counter(keys):
            # What was written between the two answers is no loss.
            missing = Counter(everything) - Counter(await self._first_keys())
            self._refuse_unlisted(sorted(missing.elements()), f"{missing.total()} ")
        return "checked"

    async def _is_listed(self, key: str) -> bool:
        # A key that holds ':' is cut here, and told where rows are listed; one without a value is no row.
        found = await self._reach.client.query(self._table.window(key, key, 1) | {"return": "keys"})
        return bool(keys_of(found)) or await self._reach.client.entity(self._source.table, key) is None

    def _refuse_unlisted(self, missing: Sequence[str], count: str) -> None:
        if missing:
            raise self._unlisted(f"{count}rows", f", such as {', '.join(map(repr, missing[:_SHOWN]))}")

    def _unlisted(self, rows: str, shown: str) -> JobFailed:
        rebuild, _ = MissingIndex(self._source.key, "range").calls(self._source.table)[1]
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"ThemisDB's table '{self._source.table}' has {rows} that its range index on "
            f"'{self._source.key}' does not list{shown}: they lack that column, or are older than the index",
            hint=f"give each row a text in '{self._source.key}'; then POST {rebuild} for the table and "
            "column, or `shardline doctor --create-themis-indexes JOB.json`",
        )

    async def _check_fields(self) -> None:
        """Look for the fields that filters name, in as many rows as it takes, up to a sample."""
        wanted = {*self._conditions.filters} - {"document_id", "content", "score"}
        fields: dict[str, None] = {}
        listing, behind, page, seen = self._reach.listing(self._everything), "", self._reach.page, 0
        while page and seen < _SAMPLE_ROWS and not wanted <= fields.keys():
            try:
                rows = await listing.rows(behind, page)
            except AnswerTooLarge:
                page //= 2
                continue
            for row in rows:
                fields |= dict.fromkeys(row.fields or ())
            last = rows[-1].id if rows else None
            if last is None or (behind and order_key(last) <= order_key(behind)):
                break
            behind, seen = last, seen + len(rows)
        if fields:
            own = {self._source.key, "content"}
            check_filters(self._conditions.filters, [name for name in fields if name not in own])

    async def _predicates(self) -> dict[str, str]:
        """What the server may filter by: it must have the index for the source's own fields."""
        chosen = dict(self._conditions.equal)
        for name, value in (chosen | self._conditions.optional).items():
            target = replace(self._table, predicates={name: value})
            try:
                await self._reach.client.query(target.page(None, 1, keys=True))
            except Rejected as error:
                missing = MissingIndex.named_in(str(error))
                if missing is None or name in self._conditions.equal:
                    raise (missing or MissingIndex(name, "equality")).error(self._source.table) from None
            else:
                chosen[name] = value
        return chosen

    async def _sample(self, wanted: Wanted) -> _Sample:
        """The first documents, as /query gives them and without their texts."""
        documents, size = list[Document](), 0
        most = min(_SAMPLE_ROWS, self._top or _SAMPLE_ROWS)
        quick = replace(wanted, lossless=False)
        async with aclosing(self._reach.listing(quick).pages(None, None)) as pages:
            async for page in pages:
                for row in page:
                    if len(documents) >= most or size >= _SAMPLE_BYTES:
                        return _Sample(documents, whole=False)
                    document = quick.parse(row.text, row.id or "")
                    if document is not None and quick.conditions.meets(document):
                        documents.append(Document(document.id, "", document.metadata))
                        size += len(row.text)
        return _Sample(documents, whole=True)

    async def _made_whole(self, wanted: Wanted, sample: _Sample) -> list[Document]:
        """The sample, its beginning read whole: for the order of fields, and for doubles such as 1.0."""
        if not wanted.lossless:
            return list(sample.documents)
        first = [one.id for one in sample.documents[:_WHOLE] if readable(self._source.table, one.id)]
        calls = [partial(self._reach.client.entity, self._source.table, key) for key in first]
        blobs = await in_order(calls, self._reach.width)
        whole = [wanted.parse(blob, "") for blob in blobs if blob is not None]
        return [*(one for one in whole if one is not None), *sample.documents[_WHOLE:]]

    async def _count(self, wanted: Wanted, sample: _Sample) -> int | None:
        """About how many rows there are; None where counting them would take too long.

        Raises:
            JobFailed: that is more than an hour's rows, and the job does not say how to read them.
        """
        seconds = max(self._reach.limiter.seconds_for(1), 1 / _ROWS_PER_SECOND)
        most = _HOUR / seconds
        if sample.whole:
            self._ask(len(sample.documents), most, seconds, "")
            return len(sample.documents)
        listing, count, behind = self._reach.listing(wanted), 0, ""
        for _ in range(_MOST_COUNTS):
            keys = await listing.keys(behind, MOST_ROWS)
            count += len(keys)
            if len(keys) < MOST_ROWS:
                self._ask(count, most, seconds, "")
                return min(count, self._top or count)
            self._ask(count, most, seconds, "more than ")
            if self._source.lossless is not None or not wanted.keyed:
                return None
            behind = keys[-1]
        return None

    def _ask(self, count: int, most: float, seconds: float, more: str) -> None:
        rows = min(count, self._top or count)
        if self._source.lossless is not None or rows <= most:
            return
        hours = rows * seconds / _HOUR
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"reading {more}{rows:,} rows of '{self._source.table}' one by one takes {more}{hours:.1f} hours "
            "at the rate that is allowed: choose",
            hint="set source.lossless to true to take that time, or to false to read quickly: then objects "
            "and lists are lost and decimal numbers are cut to 6 digits; or raise THEMIS_RATE, and the limit "
            "of the server",
        )
