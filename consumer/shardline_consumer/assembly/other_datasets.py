"""What the datasets of `dedup.against` hold: the hashes of their texts, in a file for the decision."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

import orjson

from shardline_common.assembly.content_hash import content_hash
from shardline_common.assembly.inputs import CONTENTS, Input
from shardline_common.assembly.sidecar import write_sidecar
from shardline_common.dataset.finished import OpenDataset, finished_lines, read_finished
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.plan import Plan
from shardline_common.runtime.threads import run_in_thread
from shardline_consumer.commit import SegmentSink

_HASH_BYTES = 16
_HASHES_AT_ONCE = 65_536


async def read_against(sink: SegmentSink, plan: Plan, folder: Path) -> list[list[Input]]:
    """The contents of each dataset that the plan names, in its order.

    Raises:
        JobFailed: one of them is gone or has changed since the job was planned.
        StoreUnavailable: a store cannot be read now.
        UsageError: this worker may not read an address.
    """
    dedup, open_dataset = sink.spec.dedup, sink.context.open_dataset
    if open_dataset is None and plan.against:
        address = plan.against[0]["address"]
        raise JobFailed(FailureCode.SOURCE_INVALID, f"dedup.against: this process cannot read {address}")
    if open_dataset is None:
        return []
    ignore_case = dedup is not None and dedup.ignore_case
    return await read_contents(open_dataset, plan, folder, ignore_case=ignore_case)


async def read_contents(
    open_dataset: OpenDataset, plan: Plan, folder: Path, *, ignore_case: bool
) -> list[list[Input]]:
    """`read_against` of any process. `ignore_case` is that of the job."""
    return [
        [await _read_contents(open_dataset, one, folder / f"against-{number}", ignore_case)]
        for number, one in enumerate(plan.against)
    ]


async def _read_contents(
    open_dataset: OpenDataset, against: Mapping[str, str], path: Path, ignore_case: bool
) -> Input:
    address, digest, hashes = against["address"], against["digest"], path.with_suffix(".hashes")
    try:
        async with open_dataset(address) as store:
            manifest = await read_finished(store, address, digest)
            await run_in_thread(partial(hashes.write_bytes, b""))
            async with aclosing(finished_lines(store, manifest)) as batches:  # type: ignore[type-var]
                async for lines in batches:
                    await run_in_thread(partial(_add_hashes, hashes, lines, ignore_case))
    except ObjectMissing as error:
        raise JobFailed(
            FailureCode.SOURCE_CHANGED,
            f"dedup.against: {address} lacks a shard: {error}",
            hint="restore the dataset and retry the job, or submit a new job",
        ) from None
    written = await run_in_thread(partial(write_sidecar, path, CONTENTS, _chunks(hashes)))
    return Input(address, path, written.sha256)


def _add_hashes(path: Path, lines: Sequence[bytes], ignore_case: bool) -> None:
    found = [content_hash(orjson.loads(line)["text"], ignore_case=ignore_case) for line in lines]
    with path.open("ab") as file:
        file.write(b"".join(found))


def _chunks(path: Path) -> Iterator[list[list[bytes]]]:
    with path.open("rb") as file:
        while data := file.read(_HASH_BYTES * _HASHES_AT_ONCE):
            yield [[data[start : start + _HASH_BYTES] for start in range(0, len(data), _HASH_BYTES)]]
    path.unlink()
