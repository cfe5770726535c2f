"""What became of a document of a finished dataset."""

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from shardline.services.finished import read_manifest_at
from shardline.services.wiring.stores import open_store_at
from shardline_common.assembly.find_record import FoundRecord, RecordFinder
from shardline_common.dataset.assembled import read_head
from shardline_common.dataset.line_cutter import LineCutter
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.read import ObjectReader, StoredBytes, download
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.names import Layout
from shardline_common.job.plan import read_plan
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.cores import cores_for
from shardline_common.runtime.threads import run_in_thread
from shardline_common.settings.load import Settings

_LAYOUT = Layout("")
OnObject = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of every record with an id, in the order of the source; empty: the source had none.

    `notes` say what the dataset does not keep, and where a record may therefore be.
    """

    document_id: str
    records: tuple[FoundRecord, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `explain --json` prints it."""
        return asdict(self)


async def explain_document(
    uri: str, document_id: str, settings: Settings, on_object: OnObject = lambda _done, _all: None
) -> Explanation:
    """Find what became of a document: by the sidecars of an assembled dataset, else by reading its objects.

    Args:
        uri: the dataset's folder: a directory or `s3://bucket/prefix`.
        document_id: the id of the document.
        settings: the settings of the store.
        on_object: called after each object that was read of a dataset without sidecars, with the number of
            objects read and of all.

    Raises:
        UsageError: a setting is wrong, the folder is no finished dataset, or the extra `assembly` is missing.
        JobFailed: an object of the dataset is damaged.
        StoreUnavailable: the store cannot be reached.
    """
    manifest = await read_manifest_at(uri, settings)
    async with open_store_at(uri, settings) as store:
        if not manifest.job.assembled:
            return await _scan(store, manifest, document_id, on_object)
        named = orjson.loads(await store.get(_LAYOUT.manifest))["objects"]
        sizes = {one["key"]: StoredBytes(one["bytes"], one["sha256"]) for one in named}
        head, _ = await read_head(store, _LAYOUT)
        keys = [info.key async for info in store.list(_LAYOUT.sidecars[0])]
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory(prefix="explain-", dir=settings.spool_dir) as name:
            folder, local = Path(name), Path(uri)
            fetched = dict[str, Path]()

            async def copy(key: str) -> Path:
                path = folder / key.replace("/", "-")
                wrong = JobFailed(
                    FailureCode.DATASET_DAMAGED,
                    f"{key} is not the one that manifest.json names",
                    hint="run `shardline verify` on the dataset",
                )
                await download(store, key, path, sizes.get(key), wrong)
                return path

            def fetch(key: str) -> Path:
                if "://" not in uri:
                    return local / key
                if key not in fetched:
                    fetched[key] = asyncio.run_coroutine_threadsafe(copy(key), loop).result()
                return fetched[key]

            def find() -> list[FoundRecord]:
                memory, threads = settings.decide_memory_bytes, cores_for(settings.processes)
                finder = RecordFinder(
                    folder / "engine", manifest.job, head, sorted(keys), fetch, memory, threads
                )
                try:
                    return finder.find(document_id)
                finally:
                    finder.close()

            found = await run_in_thread(find)
        plan = await read_plan(store, _LAYOUT)
        addresses = {one["digest"]: one["address"] for one in plan.against}
        with_addresses = (
            replace(one, dataset=addresses.get(one.dataset or "", one.dataset)) for one in found
        )
        return Explanation(document_id, tuple(with_addresses))


async def _scan(store: ObjectStore, manifest: Manifest, document_id: str, on_object: OnObject) -> Explanation:
    """Read all shards and rejected documents of a dataset without sidecars."""
    rejected = sorted([info.key async for info in store.list("rejected/")])
    shards = [shard["key"] for shard in manifest.shards]
    found, needle = list[FoundRecord](), orjson.dumps(document_id)
    for number, key in enumerate([*shards, *rejected], 1):
        cutter, line = LineCutter(), 0
        reader = ObjectReader(store, key, manifest.job.output.compression)
        async with aclosing(reader.plain()) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                lines = cutter.cut(chunk)
                look = partial(_matches, lines, needle, document_id)
                found += [_of_line(key, line + at, value) for at, value in await run_in_thread(look)]
                line += len(lines)
        on_object(number, len(shards) + len(rejected))
    notes = []
    if manifest.rejected and not manifest.job.quality.keep_rejected:
        count = sum(manifest.rejected.values())
        notes.append(f"the dataset does not keep its {count:,} rejected documents (quality.keep_rejected)")
    if manifest.dead_letters:
        count = sum(manifest.dead_letters.values())
        notes.append(
            f"dead letters have no id: `shardline dead-letters list` shows the {count:,} of this one"
        )
    return Explanation(document_id, tuple(found), tuple(notes))


def _matches(lines: list[bytes], needle: bytes, document_id: str) -> list[tuple[int, dict[str, Any]]]:
    """The lines of a document, by their number from 1."""
    candidates = ((at, orjson.loads(line)) for at, line in enumerate(lines, 1) if needle in line)
    return [(at, value) for at, value in candidates if value["document_id"] == document_id]


def _of_line(key: str, line: int, value: dict[str, Any]) -> FoundRecord:
    if key.startswith("rejected/"):
        measured, limit = value.get("value"), value.get("threshold")
        return FoundRecord(
            value["document_id"], "rejected", reason=value["reason"], value=measured, threshold=limit
        )
    return FoundRecord(value["document_id"], "row", key, line)
