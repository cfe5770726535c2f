"""What the datasets of `dedup.against` hold: the hashes of their texts, in a file for the decision."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree

import orjson

from shardline_common.assembly.content_hash import content_hash
from shardline_common.assembly.held_contents import HeldContents
from shardline_common.assembly.inputs import CONTENTS, Input
from shardline_common.assembly.sidecar import write_sidecar
from shardline_common.dataset.assembled import DIGEST
from shardline_common.dataset.decision import DecisionHead
from shardline_common.dataset.finished import OpenDataset, finished_lines, read_finished_objects
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.read import StoredBytes, download
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.names import Layout
from shardline_common.job.plan import Plan
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.tasks import gather_limited
from shardline_common.runtime.threads import run_in_thread
from shardline_consumer.commit import SegmentSink
from shardline_consumer.spool.file import spool_error
from shardline_consumer.staging.index import IndexRules

_log = logging.getLogger(__name__)
_HASH_BYTES = 16
_HASHES_AT_ONCE = 65_536
_LISTS_AT_ONCE = 256
_DOWNLOADS_AT_ONCE = 4
_LAYOUT = Layout("")


async def read_against(sink: SegmentSink, plan: Plan, folder: Path) -> list[list[Input]]:
    """The contents of each dataset that the plan names, in its order.

    Raises:
        JobFailed: one of them is gone or has changed since the job was planned.
        StoreUnavailable: a store cannot be read now.
        SpoolError: a file cannot be written.
        UsageError: this worker may not read an address.
    """
    dedup, context = sink.spec.dedup, sink.context
    if context.open_dataset is None and plan.against:
        address = plan.against[0]["address"]
        raise JobFailed(FailureCode.SOURCE_INVALID, f"dedup.against: this process cannot read {address}")
    if context.open_dataset is None:
        return []
    ignore_case = dedup is not None and dedup.ignore_case
    memory, threads = context.decide_memory, context.decide_threads
    reader = ContentsReader(context.open_dataset, folder, ignore_case, memory, threads)
    try:
        return await reader.read(plan)
    except OSError as error:
        raise spool_error(folder, error) from error


@dataclass(frozen=True, slots=True)
class ContentsReader:
    """Reads what other datasets hold into files of `folder`.

    `ignore_case` is that of the job. `memory_bytes` and `threads` are those of the decision.
    """

    open_dataset: OpenDataset
    folder: Path
    ignore_case: bool
    memory_bytes: int
    threads: int

    async def read(self, plan: Plan) -> list[list[Input]]:
        """The contents of each dataset that the plan names. Raises as `read_against`, and OSError."""
        return [
            [await self._read(one, self.folder / f"against-{number}")]
            for number, one in enumerate(plan.against)
        ]

    async def _read(self, against: Mapping[str, str], path: Path) -> Input:
        address, hashes = against["address"], path.with_suffix(".hashes")
        try:
            async with self.open_dataset(address) as store:
                manifest, objects = await read_finished_objects(store, address, against["digest"])
                if not (self._fits(manifest) and await self._from_sidecars(store, manifest, objects, hashes)):
                    await self._from_rows(store, manifest, hashes)
        except ObjectMissing as error:
            raise JobFailed(
                FailureCode.SOURCE_CHANGED,
                f"dedup.against: {address} lacks a shard: {error}",
                hint="restore the dataset and retry the job, or submit a new job",
            ) from None
        written = await run_in_thread(partial(write_sidecar, path, CONTENTS, _chunks(hashes)))
        return Input(address, path, written.sha256)

    def _fits(self, manifest: Manifest) -> bool:
        """Whether the sidecars of a dataset have content hashes, by the same rules and the same case."""
        job, notes = manifest.job, manifest.assembly
        if notes is None or notes.layout != DIGEST or IndexRules.of(job).content is None:
            return False
        return (job.dedup is not None and job.dedup.ignore_case) == self.ignore_case

    async def _from_sidecars(
        self, store: ObjectStore, manifest: Manifest, objects: Mapping[str, StoredBytes], hashes: Path
    ) -> bool:
        """Write the hashes of the rows that the dataset keeps. False: its rows must be read instead.

        Memory and disk hold the positions of its drops, and one sidecar or some drop lists at a time.
        """
        copies, engine = hashes.with_suffix(".copies"), hashes.with_suffix(".engine")
        await run_in_thread(partial(copies.mkdir, exist_ok=True))
        held = await run_in_thread(
            partial(HeldContents, engine, self.memory_bytes, self.threads), HeldContents.close
        )

        async def fetch(key: str, place: int) -> Path:
            wrong = JobFailed(FailureCode.DATASET_DAMAGED, f"{key} is not the one that manifest.json names")
            copy = copies / str(place)
            await download(store, key, copy, objects.get(key), wrong)
            return copy

        try:
            path = await fetch(_LAYOUT.decision, 0)
            head = await run_in_thread(lambda: DecisionHead.decode(path.read_bytes()))
            lists = [_LAYOUT.drops(*name) for name in head.drop_lists()]
            for start in range(0, len(lists), _LISTS_AT_ONCE):
                part = enumerate(lists[start : start + _LISTS_AT_ONCE])
                found = await gather_limited([partial(fetch, key, n) for n, key in part], _DOWNLOADS_AT_ONCE)
                await run_in_thread(partial(held.add_drops, found))
            await run_in_thread(partial(hashes.write_bytes, b""))
            for key in sorted(key for key in objects if key.startswith(_LAYOUT.sidecars[0])):
                sidecar = await fetch(key, 0)
                await run_in_thread(partial(_add_contents, hashes, held, sidecar))
            if held.rows == manifest.totals["rows"]:
                return True
            why = f"its sidecars have {held.rows:,} rows, and it has {manifest.totals['rows']:,}"
        except (JobFailed, ObjectMissing) as error:
            why = str(error)
        finally:
            await run_in_thread(held.close)
            await run_in_thread(partial(rmtree, copies, ignore_errors=True))
        _log.warning("dedup.against: the rows of %s are read, because %s", store.uri, why)
        return False

    async def _from_rows(self, store: ObjectStore, manifest: Manifest, hashes: Path) -> None:
        await run_in_thread(partial(hashes.write_bytes, b""))
        async with aclosing(finished_lines(store, manifest)) as batches:  # type: ignore[type-var]
            async for lines in batches:
                await run_in_thread(partial(_add_hashes, hashes, lines, self.ignore_case))


def _add_contents(path: Path, held: HeldContents, sidecar: Path) -> None:
    with path.open("ab") as file:
        for (contents,) in held.contents(sidecar):
            file.write(b"".join(contents))


def _add_hashes(path: Path, lines: Sequence[bytes], ignore_case: bool) -> None:
    found = [content_hash(orjson.loads(line)["text"], ignore_case=ignore_case) for line in lines]
    with path.open("ab") as file:
        file.write(b"".join(found))


def _chunks(path: Path) -> Iterator[list[list[bytes]]]:
    with path.open("rb") as file:
        while data := file.read(_HASH_BYTES * _HASHES_AT_ONCE):
            yield [[data[start : start + _HASH_BYTES] for start in range(0, len(data), _HASH_BYTES)]]
    path.unlink()
