"""The staged rows of an assembled job: where they are, and the proof that all of them are there.

They lie outside the dataset, below `_staged/`, until it is assembled. A chain record names them, and the
records of all chains are therefore the list of them. Other objects below that prefix are of workers that were
late or were killed, and are no part of the job.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shardline_common.dataset.chain import ChainRecord, SegmentObject
from shardline_common.errors import FailureCode, JobFailed, StoreUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import State
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.listing import ListsDiffer, proven_list


@dataclass(frozen=True, slots=True)
class StagedRows:
    """The staged rows of one segment: the key of the object in the store, and its chain record."""

    key: str
    record: ChainRecord
    item: SegmentObject


def staged_rows(records: Iterable[ChainRecord], layout: Layout) -> Iterator[StagedRows]:
    """The staged rows of segments, of those that have rows.

    Raises:
        JobFailed: a chain record does not name the rows that its segment has, or contradicts itself
            (`conservation`).
    """
    for record in records:
        item = record.objects.data if record.objects else None
        if not record.is_staged or (item is None) == (record.segment.rows > 0):
            raise _contradiction(record, "it does not name its staged rows")
        if item is None:
            continue
        key = layout.staged(record.partition, record.first)
        if item.key != key or record.key != key:
            raise _contradiction(record, f"it names {item.key} instead of {key}")
        # Staged rows are never compressed.
        if (item.stored_bytes, item.stored_sha256, item.plain_sha256) != (
            record.segment.bytes,
            record.sha256,
            record.sha256,
        ):
            raise _contradiction(record, f"it says two things about {key}")
        yield StagedRows(key, record, item)


async def prove_staged(
    store: ObjectStore, layout: Layout, records: Iterable[ChainRecord]
) -> list[StagedRows]:
    """The staged rows of segments, each of which is in the store with its size.

    Only their readers find bytes that were changed: they compare the sha256.

    Raises:
        JobFailed: as `staged_rows`, or staged rows are missing or have another size (`object_lost`).
        StoreUnavailable: the store cannot be read now.
    """
    found = list(staged_rows(records, layout))

    async def read() -> dict[str, int]:
        return {info.key: info.size async for info in store.list(layout.staged_rows)}

    try:
        sizes = await proven_list(read)
    except ListsDiffer as error:
        raise StoreUnavailable(f"the lists of {layout.staged_rows} differ: {error}") from None
    for rows in found:
        if sizes.get(rows.key) != rows.item.stored_bytes:
            there = f"has {sizes[rows.key]} bytes" if rows.key in sizes else "is not in the store"
            raise JobFailed(
                FailureCode.OBJECT_LOST,
                f"{rows.key} {there}; {rows.item.stored_bytes} bytes were put, and acknowledged",
                hint="find out why the store loses objects; then submit the job under a new id",
            )
    return found


def needs_staged(spec: JobSpec, state: State) -> bool:
    """Whether a job keeps its staged rows: those of failed and cancelled jobs are for a retry."""
    if state is State.DELETED:
        return False
    return state is not State.COMPLETED or spec.output.keep_staged


async def remove_staged(store: ObjectStore, spec: JobSpec) -> None:
    """Remove the staged rows and decision steps of a completed dataset, unless the job keeps them.

    Raises:
        StoreUnavailable: call again.
    """
    if spec.assembled and not needs_staged(spec, State.COMPLETED):
        await store.purge(Layout.of(spec).staged_root)


def _contradiction(record: ChainRecord, what: str) -> JobFailed:
    return JobFailed(
        FailureCode.CONSERVATION,
        f"partition {record.partition}, sequence {record.first}: the chain record contradicts itself: {what}",
    )
