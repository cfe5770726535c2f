"""The functions of `shardline` for code without an event loop: the same arguments, results and errors.

Each call runs a new event loop. Inside a running loop, as in a notebook, it raises UsageError: await the
function of `shardline` there. Ctrl-C stops the call, cleans up and raises KeyboardInterrupt.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import closing
from types import TracebackType
from typing import ParamSpec, TypeVar

from shardline.api import operations
from shardline.api.explain import explain as explain_one
from shardline.api.features import features as read_features
from shardline.api.inputs import JobLike
from shardline.api.list_reader import ListReader
from shardline.api.results import (
    ExplainResult,
    JobStatus,
    PreviewResult,
    Progress,
    Row,
    RowCounts,
    RowFeatures,
    RunResult,
    VerifyProgress,
    VerifyResult,
)
from shardline.api.rows import row_lists
from shardline_common.errors import UsageError
from shardline_common.runtime.threads import set_thread_pool

__all__ = [
    "SyncRowStream",
    "cancel",
    "explain",
    "features",
    "preview",
    "retry",
    "run",
    "status",
    "stream",
    "submit",
    "verify",
]

P = ParamSpec("P")
T = TypeVar("T")
_STREAM_INSTEAD = "use `async for row in shardline.stream(…)` there"


def run(
    job: JobLike,
    *,
    output: str | os.PathLike[str] = "datasets",
    replace: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunResult:
    """Run a whole job in this process, without Kafka. See `shardline.run`."""
    return _complete(
        operations.run, job, output=output, replace=replace, settings=settings, on_progress=on_progress
    )


def preview(
    job: JobLike,
    *,
    documents: int = 1000,
    seconds: float = 20.0,
    settings: Mapping[str, object] | None = None,
) -> PreviewResult:
    """Read the first documents of a job and estimate its result. See `shardline.preview`."""
    return _complete(operations.preview, job, documents=documents, seconds=seconds, settings=settings)


def verify(
    uri: str | os.PathLike[str],
    *,
    digest: str | None = None,
    key: str | os.PathLike[str] | None = None,
    processes: int | None = None,
    decision: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[VerifyProgress], None] | None = None,
) -> VerifyResult:
    """Read every byte of a finished dataset and check its proof. See `shardline.verify`."""
    return _complete(
        operations.verify,
        uri,
        digest=digest,
        key=key,
        processes=processes,
        decision=decision,
        settings=settings,
        on_progress=on_progress,
    )


def explain(
    uri: str | os.PathLike[str], document_id: str, *, settings: Mapping[str, object] | None = None
) -> ExplainResult:
    """Find what became of a document of a finished dataset. See `shardline.explain`."""
    return _complete(explain_one, uri, document_id, settings=settings)


def features(uri: str | os.PathLike[str], *, settings: Mapping[str, object] | None = None) -> RowFeatures:
    """Return a finished dataset's `datasets.Features`. See `shardline.features`."""
    return _complete(read_features, uri, settings=settings)


def submit(
    job: JobLike,
    *,
    wait: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> str:
    """Submit a job to a running system and return its id. See `shardline.submit`."""
    return _complete(operations.submit, job, wait=wait, settings=settings, on_progress=on_progress)


def status(
    job_id: str,
    *,
    wait: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> JobStatus:
    """Return the status of a job. See `shardline.status`."""
    return _complete(operations.status, job_id, wait=wait, settings=settings, on_progress=on_progress)


def cancel(
    job_id: str,
    *,
    wait: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Request that a job stops. See `shardline.cancel`."""
    _complete(operations.cancel, job_id, wait=wait, settings=settings, on_progress=on_progress)


def retry(
    job_id: str,
    *,
    wait: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Request a new attempt of a failed or cancelled job. See `shardline.retry`."""
    _complete(operations.retry, job_id, wait=wait, settings=settings, on_progress=on_progress)


def stream(job: JobLike, *, settings: Mapping[str, object] | None = None) -> "SyncRowStream":
    """Stream the rows of a job in source order. See `shardline.stream`."""
    _refuse_running_loop("stream", _STREAM_INSTEAD)
    lists, counts = row_lists(job, settings)
    return SyncRowStream(_rows(lists), counts)


class SyncRowStream(Generator[Row, None, None]):
    """A generator of rows. Close it (`contextlib.closing`) to stop before its end."""

    def __init__(self, rows: Generator[Row, None, None], counts: Callable[[], RowCounts]) -> None:
        self._rows = rows
        self._counts = counts

    @property
    def counts(self) -> RowCounts:
        """The counts so far. They can be ahead of the rows by some batches, and are exact at the end."""
        return self._counts()

    def send(self, value: None, /) -> Row:
        """Return the next row."""
        return self._rows.send(value)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Row:
        """Raise an error at the point where the stream is suspended."""
        if isinstance(typ, BaseException):
            return self._rows.throw(typ)
        return self._rows.throw(typ, val, tb)

    def close(self) -> None:
        """Stop the stream and close its source."""
        self._rows.close()


def _rows(lists: AsyncGenerator[list[Row], None]) -> Generator[Row, None, None]:
    _refuse_running_loop("stream", _STREAM_INSTEAD)
    with closing(ListReader(lists).lists()) as found:
        for rows in found:
            yield from rows


def _complete(function: Callable[P, Coroutine[object, None, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    name = function.__name__
    _refuse_running_loop(name, f"`await shardline.{name}(…)` there")

    async def main() -> T:
        set_thread_pool()
        return await function(*args, **kwargs)

    return asyncio.run(main())


def _refuse_running_loop(name: str, instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(f"shardline.sync.{name} was called inside a running event loop", hint=instead)
