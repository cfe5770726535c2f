"""Planning a job over a ThemisDB table: its indexes, fields, columns and duration."""

import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.http.client import ResponseTooLarge
from shardline_common.job.columns import infer
from shardline_common.job.spec import JobSpec, ThemisSource
from shardline_common.runtime.tasks import gather_limited
from shardline_producer.sources.planned_store import Description
from shardline_producer.sources.query_filters import OWN_FIELDS, check_filters
from shardline_producer.sources.source import Document
from shardline_producer.sources.themis.client import QueryRejected
from shardline_producer.sources.themis.conditions import Conditions
from shardline_producer.sources.themis.key_faults import key_column_mismatch
from shardline_producer.sources.themis.queries import (
    MAX_ROWS,
    MissingIndex,
    TableQuery,
    is_readable,
    order_key,
)
from shardline_producer.sources.themis.selection import RowSelection
from shardline_producer.sources.themis.table_check import IndexCheck, ThemisSession

_log = logging.getLogger(__name__)
_SAMPLE_ROWS = 10_000
_SAMPLE_BYTES = 16 << 20
_STORED_SAMPLE_ROWS = 50
_HOUR = 3600.0
# Measured over one connection, without a rate limit.
_ROWS_PER_SECOND = 3500.0
_MAX_COUNT_QUERIES = 100
# Of the sample: if more rows have no text, reading each of them alone would take longer than all others.
_MAX_EMPTY_ROWS = 100
_NO_ROW = "shardline_probe"


@dataclass(frozen=True, slots=True)
class _DocumentSample:
    """The first documents of a selection; `complete`: there are no others. `empty`: rows that are none."""

    documents: Sequence[Document]
    complete: bool
    empty: int


class TablePlanner:
    """Makes the Description of one job over one table."""

    def __init__(self, session: ThemisSession, spec: JobSpec, source: ThemisSource) -> None:
        self._session = session
        self._top = spec.query.top_k
        self._max_columns = spec.format.max_columns if spec.format.metadata is None else None
        self._source = source
        self._conditions = Conditions.of(source, spec.query)
        self._table_query = TableQuery(source.table, source.key, {})
        no_conditions = replace(self._conditions, equal={}, since=None, until=None, filters={})
        self._all_rows = RowSelection(self._table_query, no_conditions, lossless=False, keyed=True)

    async def describe(self) -> Description:
        """Facts, columns and estimate.

        Raises:
            JobFailed: an index or the table is missing; the index does not list some rows; a filter names an
                unknown field; or reading without losses would take over an hour and source.lossless is null.
            SourceUnavailable: a later try may succeed.
        """
        # 1. The range index on the key column: that it exists, what it holds, and that it lists all rows.
        keys = await self._first_keys()
        keyed = await self._is_keyed(keys)
        check = IndexCheck(self._session, self._all_rows, self._source.table, self._source.key)
        found = await check.run(keys, keyed=keyed)
        # 2. The filters: that their fields exist, and which of them the server applies.
        await self._check_fields()
        wanted = await self._predicates()
        predicates, filtered, unproven = await self._proven(wanted)
        query = replace(self._table_query, predicates=predicates)
        selection = RowSelection(query, self._conditions, self._source.lossless is not False, keyed)
        # 3. The columns and the number of rows.
        sample = await self._sample(selection)
        count = await self._count(selection, sample, filtered if predicates else found.listed)
        columns = infer(await self._with_stored_rows(selection, sample), self._max_columns)
        facts = {"predicates": dict(query.predicates), "lossless": selection.lossless, "keyed": keyed}
        if keyed and not selection.lossless:
            facts["reads_empty"] = await self._reads_empty(sample)
        notes = {"table": query.table, "lossless": selection.lossless, "index": found.how}
        if unproven:
            notes["filtered"] = f"by Shardline: {unproven}"
        return Description(
            facts | found.state.facts() | ({"unchecked": found.unchecked} if found.unchecked else {}),
            columns=columns.to_json(),
            notes=notes,
            estimate=count,
            without_column=columns.without_column,
        )

    async def _first_keys(self) -> list[str]:
        try:
            return await self._session.lister(self._all_rows).keys("", MAX_ROWS)
        except JobFailed:
            # The server reports a missing index for a table that does not exist, too.
            if (await self._session.client.scan(self._table_query.scan())).count != 0:
                raise
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"ThemisDB has no row in a table '{self._source.table}': it is empty or does not exist",
                hint="check source.table",
            ) from None

    async def _is_keyed(self, keys: Sequence[str]) -> bool:
        """Whether the key column holds the rows' keys, according to the first rows.

        Raises:
            JobFailed: it does not, and the job reads rows one by one.
        """
        if not keys:
            return True
        rows = await self._session.lister(self._all_rows).rows("", min(len(keys), 10))
        ids = [row.id for row in rows if row.id is not None]
        keyed = not ids or not set(ids).isdisjoint(keys)
        if not keyed and self._source.lossless is not False:
            raise key_column_mismatch(self._table_query, ids[0])
        return keyed

    async def _check_fields(self) -> None:
        """Check that the fields of the filters exist. Reads rows until all are found, at most a sample.

        Raises:
            JobFailed: a filter names a field that no sampled row has.
        """
        wanted = {*self._conditions.filters}.difference(OWN_FIELDS)
        fields: dict[str, None] = {}
        lister, behind, page, read = self._session.lister(self._all_rows), "", self._session.page, 0
        while page and read < _SAMPLE_ROWS and not wanted <= fields.keys():
            try:
                rows = await lister.rows(behind, page)
            except ResponseTooLarge:
                page //= 2
                continue
            for row in rows:
                fields |= dict.fromkeys(row.fields or ())
            last = rows[-1].id if rows else None
            if last is None or (behind and order_key(last) <= order_key(behind)):
                break
            behind, read = last, read + len(rows)
        if fields:
            not_metadata = {self._source.key, "content"}
            check_filters(self._conditions.filters, [name for name in fields if name not in not_metadata])

    async def _predicates(self) -> dict[str, str]:
        """The equalities by which the server filters.

        `theme`, `domain` and `subject` need an index. Other filters are included only if they have one.
        """
        predicates = dict(self._conditions.equal)
        for name, value in (predicates | self._conditions.optional).items():
            query = replace(self._table_query, predicates={name: value})
            try:
                await self._session.client.query(query.page(None, 1, keys=True))
            except QueryRejected as error:
                missing = MissingIndex.named_in(str(error))
                if missing is None or name in self._conditions.equal:
                    raise (missing or MissingIndex(name, "equality")).error(self._source.table) from None
            else:
                predicates[name] = value
        return predicates

    async def _proven(self, predicates: dict[str, str]) -> tuple[dict[str, str], int | None, str]:
        """The predicates, and how many rows match them; else none, and why the server cannot apply them.

        An index that was created and not rebuilt holds only the rows that were written since. The server does
        not say so, and rebuilds of two indexes of a column the range index alone.
        """
        if not predicates:
            return {}, None, ""
        query, columns = replace(self._table_query, predicates=predicates), " or ".join(predicates)
        lister = self._session.lister(replace(self._all_rows, query=query))
        for _ in range(2):
            # The second time, because rows may be written between the two queries.
            matching = await lister.scan()
            if matching.keys is None:
                why = f"the equality index on {columns} cannot be compared with the rows: {matching.why}"
                return {}, None, why
            # Without a range on another column, the same query uses the equality indexes.
            listed = await self._session.client.scan(query.scan() | {"range": []})
            if not set(matching.keys).difference(listed.keys or ()):
                return predicates, len(matching.keys), ""
        _log.warning(
            "the equality index of ThemisDB's table '%s' on %s lacks rows; Shardline filters them itself, "
            "which reads the whole table: POST /index/rebuild for it",
            query.table,
            columns,
        )
        return {}, None, f"the equality index on {columns} lacks rows"

    async def _sample(self, selection: RowSelection) -> _DocumentSample:
        """The first documents, read with losses and kept without their texts."""
        documents, size, empty = list[Document](), 0, 0
        max_rows = min(_SAMPLE_ROWS, self._top or _SAMPLE_ROWS)
        lossy = replace(selection, lossless=False)
        async with aclosing(self._session.lister(lossy).pages(None, None)) as pages:
            async for page in pages:
                for row in page:
                    if len(documents) >= max_rows or size >= _SAMPLE_BYTES:
                        return _DocumentSample(documents, complete=False, empty=empty)
                    document = lossy.parse(row.text, row.id or "")
                    empty += document is None
                    if document is not None and lossy.conditions.meets(document):
                        documents.append(Document(document.id, "", document.metadata))
                        size += len(row.text)
        return _DocumentSample(documents, complete=True, empty=empty)

    async def _with_stored_rows(self, selection: RowSelection, sample: _DocumentSample) -> list[Document]:
        """The sample, with its first rows as they were stored.

        They give the order of the columns and their types: /query sorts the fields of a row, and prints the
        double 1.0 as 1.
        """
        if not selection.lossless:
            return list(sample.documents)
        table = self._source.table
        first = [item.id for item in sample.documents[:_STORED_SAMPLE_ROWS] if is_readable(table, item.id)]
        calls = [partial(self._session.client.entity, table, key) for key in first]
        blobs = await gather_limited(calls, self._session.concurrency)
        stored = [selection.parse(blob, "") for blob in blobs if blob is not None]
        return [*(item for item in stored if item is not None), *sample.documents[_STORED_SAMPLE_ROWS:]]

    async def _reads_empty(self, sample: _DocumentSample) -> bool:
        """Whether rows without a text are read alone. It is decided here, so that each read does the same."""
        if sample.empty > _MAX_EMPTY_ROWS:
            return False
        try:
            await self._session.client.entity(self._source.table, _NO_ROW)
        except (JobFailed, QueryRejected):
            # The token may only query.
            return False
        return True

    async def _count(self, selection: RowSelection, sample: _DocumentSample, known: int | None) -> int | None:
        """The approximate number of rows; None when counting them would take too long.

        `known`: how many the server lists.

        Raises:
            JobFailed: reading them one by one would take over an hour, and source.lossless is null.
        """
        seconds = max(self._session.limiter.interval, 1 / _ROWS_PER_SECOND)
        if sample.complete:
            known = len(sample.documents)
        elif known is None:
            lister, known, behind = self._session.lister(selection), 0, ""
            for _ in range(_MAX_COUNT_QUERIES):
                keys = await lister.keys(behind, MAX_ROWS)
                if not keys:
                    break
                known += len(keys)
                self._check_duration(known, seconds, "more than ")
                if self._source.lossless is not None or not selection.keyed:
                    return None
                behind = keys[-1]
            else:
                return None
        self._check_duration(known, seconds, "")
        return min(known, self._top or known)

    def _check_duration(self, count: int, seconds: float, more: str) -> None:
        rows = min(count, self._top or count)
        if self._source.lossless is not None or rows <= _HOUR / seconds:
            return
        hours = rows * seconds / _HOUR
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"reading {more}{rows:,} rows of '{self._source.table}' one by one takes {more}{hours:.1f} hours "
            "at the allowed rate: choose how to read them",
            hint="set source.lossless to true to take that time, or to false to read many rows in one "
            "response (objects and lists are lost, and decimal numbers are cut to 6 digits); or raise "
            "THEMIS_RATE and the limit of the server",
        )
