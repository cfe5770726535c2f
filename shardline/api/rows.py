"""stream: the rows of a job, directly from its source."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType

import orjson

from shardline.api.inputs import JobLike, settings_of, spec_of
from shardline.api.results import Row, RowCounts
from shardline.services.row_stream import StreamCounts, row_batches
from shardline.services.wiring.filter_files import file_fetcher
from shardline.services.wiring.sources import source_factory
from shardline.services.wiring.stores import open_source_s3


class RowStream(AsyncGenerator[Row, None]):
    """An async generator of rows. Close it (`contextlib.aclosing`) to stop before its end."""

    def __init__(self, rows: AsyncGenerator[Row, None], counts: Callable[[], RowCounts]) -> None:
        self._rows = rows
        self._counts = counts

    @property
    def counts(self) -> RowCounts:
        """The counts so far. They can be ahead of the rows by one batch, and are exact at the end."""
        return self._counts()

    async def asend(self, value: None, /) -> Row:
        """Return the next row."""
        return await self._rows.asend(value)

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Row:
        """Raise an error at the point where the stream is suspended."""
        if isinstance(typ, BaseException):
            return await self._rows.athrow(typ)
        return await self._rows.athrow(typ, val, tb)

    async def aclose(self) -> None:
        """Stop the stream and close its source."""
        await self._rows.aclose()


def stream(job: JobLike, *, settings: Mapping[str, object] | None = None) -> RowStream:
    """Stream the rows of a job in source order, without Kafka and without a dataset.

    The rows are the same as those of `run`, but without a proof: use `run` for training data. Rejected
    documents and dead letters are left out; `counts` of the stream has their numbers. Memory does not grow
    with the number of rows.

    Args:
        job: the job; its `output` is not used.
        settings: settings by name, used before the environment, .env and shardline.toml.

    Raises:
        UsageError: the job or a setting is wrong.
        JobFailed: while streaming: the job would fail at planning, or the source changed.
        ServiceUnavailable: while streaming: a store cannot be reached.
    """
    lists, counts = row_lists(job, settings)

    async def rows() -> AsyncGenerator[Row, None]:
        async with aclosing(lists):
            async for batch in lists:
                for row in batch:
                    yield row

    return RowStream(rows(), counts)


def row_lists(
    job: JobLike, settings: Mapping[str, object] | None
) -> tuple[AsyncGenerator[list[Row], None], Callable[[], RowCounts]]:
    """Return the rows of a job in lists, and a function that returns the counts so far."""
    found, counts = settings_of(settings), StreamCounts()
    spec = spec_of(job, found)

    async def lists() -> AsyncGenerator[list[Row], None]:
        async with open_source_s3(found, spec) as remote:
            source = source_factory(found, Path(), confined=False, remote=remote)
            fetch = file_fetcher(Path(), confined=False, remote=remote)
            size = found.streaming_batch_size
            async with aclosing(row_batches(spec, source, size, counts, fetch=fetch)) as batches:
                async for batch in batches:
                    yield [Row(**orjson.loads(line)) for line in batch]

    def snapshot() -> RowCounts:
        return RowCounts(
            read=counts.read,
            rows=counts.rows,
            rejected=dict(sorted(counts.rejected.items())),
            dead_letters=dict(sorted(counts.dead.items())),
        )

    return lists(), snapshot
