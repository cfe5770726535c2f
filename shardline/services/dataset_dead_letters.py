"""The dead letters in the folder of a dataset, finished or not, in the form of those in Kafka."""

import base64
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from shardline.services.finished import datasets_below, read_manifest
from shardline.services.wiring.stores import open_store_at
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.read import ObjectReader
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing, UsageError
from shardline_common.job.dead_letters import DeadLetterRecord
from shardline_common.job.messages import MAX_ORIGINAL_BYTES
from shardline_common.job.names import Layout
from shardline_common.job.plan import read_plan
from shardline_common.job.spec import FilesSource, ThemisSource
from shardline_common.ports.store import ObjectStore
from shardline_common.settings.load import Settings
from shardline_producer.sources.documents import DeadLetterReason, FieldNames, field_names, meaning

_OBJECT = re.compile(r"dead-letters/part-(\d{5,})-(\d{12,})\.jsonl(\.gz|\.zst)?")
_COMPRESSION = {None: "none", ".gz": "gzip", ".zst": "zstd"}
_LAYOUT = Layout("")


@dataclass(frozen=True, slots=True)
class FoundDeadLetters:
    """Dead letters by key, in the order of partitions and sequences.

    `missing`: how many more the manifest counts. Version 0.1 did not store them.
    """

    by_key: dict[str, DeadLetterRecord]
    missing: int = 0


async def dead_letters_at(uri: str, settings: Settings, *, originals: bool) -> FoundDeadLetters:
    """Read the dead letters of the finished segments of the dataset in the folder `uri`.

    `originals` False leaves the original bytes out, which keeps memory small.

    Raises:
        UsageError: a setting is wrong, or the folder is no dataset; the hint names those below it.
        JobFailed: an object of the dataset is damaged (`dataset_damaged`).
        StoreUnavailable: the store cannot be reached.
    """
    async with open_store_at(uri, settings) as store:
        try:
            paths = [file.get("path") for file in (await read_plan(store, _LAYOUT)).frozen]
        except ObjectMissing:
            below = await datasets_below(store)
            hint = f"name one of these: {', '.join(below)}" if below else "name the folder that has _state/"
            raise UsageError(f"{uri} has no _state/plan.json: it is no dataset", hint=hint) from None
        manifest = await _manifest(store)
        names = _names(manifest)
        # The folder of a dataset has the name of its job.
        job_id = store.uri.rstrip("/").rpartition("/")[2]
        records = {info.key async for info in store.list(_LAYOUT.chains)}
        found: dict[str, DeadLetterRecord] = {}
        for key in sorted([info.key async for info in store.list("dead-letters/")]):
            match = _OBJECT.fullmatch(key)
            # Without a chain record it is no part of the dataset: a killed process has left it.
            if match is None or _LAYOUT.chain_record(int(match[1]), int(match[2])) not in records:
                continue
            async with aclosing(_lines(store, key, _COMPRESSION[match[3]])) as lines:
                async for line in lines:
                    one = _record(job_id, key, int(match[1]), line, paths, names, originals=originals)
                    found[one.key] = one
        counted = sum(manifest.dead_letters.values()) if manifest else 0
        return FoundDeadLetters(found, counted - len(found))


async def _manifest(store: ObjectStore) -> Manifest | None:
    try:
        return await read_manifest(store, _LAYOUT.manifest)
    except ObjectMissing:
        return None


def _names(manifest: Manifest | None) -> FieldNames:
    """The names of the fields with id and text. The job of an unfinished dataset is not in its folder."""
    if manifest is None:
        return FieldNames("id", ("text",))
    source = manifest.job.source
    if isinstance(source, FilesSource):
        return field_names(source)
    return FieldNames(source.key) if isinstance(source, ThemisSource) else FieldNames()


async def _lines(store: ObjectStore, key: str, compression: str) -> AsyncGenerator[bytes, None]:
    rest = b""
    async with aclosing(ObjectReader(store, key, compression).plain()) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line
    if rest:
        # An object ends with a line.
        yield rest


def _record(
    job_id: str,
    key: str,
    partition: int,
    line: bytes,
    paths: list[str | None],
    names: FieldNames,
    *,
    originals: bool,
) -> DeadLetterRecord:
    try:
        value = orjson.loads(line)
        original = value["original_base64"]
        return DeadLetterRecord(
            key=f"{job_id}/{partition}/{value['sequence']}",
            job_id=job_id,
            reason=value["reason"],
            hint=_place(value["position"], paths) + _meaning(value["reason"], value["size"], names),
            position=value["position"],
            sha256=value["sha256"],
            size=value["size"],
            original=base64.b64decode(original) if originals and original is not None else None,
        )
    except (ValueError, TypeError, LookupError):
        raise JobFailed(
            FailureCode.DATASET_DAMAGED,
            f"{key} holds a line that is no dead letter",
            hint="run `shardline verify` on the dataset",
        ) from None


def _meaning(reason: str, size: int, names: FieldNames) -> str:
    # Of the bodies of some stores only the start is known.
    known = reason == DeadLetterReason.TOO_LARGE and size > MAX_ORIGINAL_BYTES
    return meaning(reason, names) + (f": {size:,} bytes" if known else "")


def _place(position: list[int], paths: list[str | None]) -> str:
    """Where a document of a file was read: the position begins with the index of the file and the line."""
    path = paths[position[0]] if position and position[0] < len(paths) else None
    return f"{path}:{position[1]}: " if path is not None else ""
