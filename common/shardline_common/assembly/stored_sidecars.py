"""Sidecars in the object store: downloaded to a file, and read."""

from collections import Counter
from functools import partial
from pathlib import Path

from shardline_common.assembly.sidecar import (
    BANDS,
    RECORDS,
    SIGNATURES,
    SidecarKind,
    Status,
    read_sidecar,
    sidecar_batches,
)
from shardline_common.dataset.read import ObjectReader, StoredBytes, reads, unsteady
from shardline_common.dataset.segment_check import SidecarFacts
from shardline_common.errors import JobFailed
from shardline_common.job.hashing import MODULUS
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.threads import run_in_thread

KINDS = {kind.name: kind for kind in (RECORDS, BANDS, SIGNATURES)}


async def read_stored_sidecar(
    store: ObjectStore, key: str, kind: SidecarKind, path: Path, expected: str
) -> tuple[str, StoredBytes]:
    """The sha256 of the values of a sidecar in the store, and its stored bytes.

    It is downloaded to `path`. One with other values than those of `expected`, or that is no sidecar, is read
    again until two reads in a row give the same bytes: one damaged answer of the store is no fact about it.

    Raises:
        JobFailed: it is no sidecar of this kind (`dataset_damaged`).
        ObjectMissing: there is no such object.
        StoreUnavailable: the store cannot be read now.
        OSError: the file cannot be written.
        UsageError: pyarrow is not installed.
    """
    before: StoredBytes | None = None
    async for _ in reads():
        reader = ObjectReader(store, key, "none")
        await reader.save(path)
        stored = reader.stored
        fault: JobFailed | None = None
        found = ""
        try:
            found = (await run_in_thread(partial(read_sidecar, path, kind))).sha256
        except JobFailed as error:
            fault = error
        if found == expected or (fault is None and stored == before):
            return found, stored
        if fault is not None and stored == before:
            raise fault
        before = stored
    raise unsteady(key)


def sidecar_facts(name: str, path: Path) -> SidecarFacts:
    """What a sidecar of the kind with this name holds. Blocks.

    Raises:
        JobFailed: the file is no sidecar of this kind (`dataset_damaged`).
        UsageError: pyarrow is not installed.
    """
    sha256 = read_sidecar(path, KINDS[name]).sha256
    if name != RECORDS.name:
        return SidecarFacts(sha256)
    counts, size, hash_sum = Counter[tuple[int, str | None]](), 0, 0
    for batch in sidecar_batches(path, RECORDS):
        status, reason = (batch.column(name).to_pylist() for name in ("status", "reason"))
        counts.update(zip(status, reason, strict=True))
        size += sum(batch.column("size").drop_null().to_pylist())
        hash_sum += sum(batch.column("id_hash").to_pylist())
    rejected, dead = (
        {reason or "": count for (status, reason), count in sorted(counts.items(), key=str) if status == kind}
        for kind in (Status.REJECTED, Status.DEAD_LETTER)
    )
    rows = sum(count for (status, _), count in counts.items() if status == Status.ROW)
    return SidecarFacts(sha256, rows, size, rejected, dead, hash_sum % MODULUS)
