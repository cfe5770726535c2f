"""Staging a closed segment: its rows are sorted into a file of their own, and its sidecars are written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardline_common.assembly.arrays import arrow_chosen, arrow_numbers, arrow_texts
from shardline_common.assembly.sidecar import (
    BANDS,
    RECORDS,
    SIGNATURES,
    Sidecar,
    SidecarKind,
    arrow_type,
    write_sidecar,
)
from shardline_common.runtime.file_hash import file_sha256
from shardline_consumer.curation.verdicts import Bounds
from shardline_consumer.spool.file import SpoolDamaged, SpoolFile, is_damaged, spool_error
from shardline_consumer.staging.entries import IndexEntries
from shardline_consumer.staging.index import ROW, SegmentIndex

if TYPE_CHECKING:
    from shardline_common.dataset.chain import Totals
    from shardline_consumer.staging.entries import Numbers

_LINES_AT_ONCE = 65_536
_SIGNATURES_AT_ONCE = 8192
_BYTES_AT_ONCE = 1 << 20
Columns = Sequence[Any]


@dataclass(frozen=True, slots=True)
class SidecarFile:
    """A sidecar in the spool: `size` and `sha256` are of its bytes, `lines` has those of its lines."""

    kind: SidecarKind
    path: Path
    size: int
    sha256: str
    lines: Sidecar


@dataclass(slots=True)
class StagedFiles:
    """The files of a staged segment. `rows` is None for a segment without rows."""

    rows: SpoolFile | None
    sidecars: list[SidecarFile]

    def discard(self) -> None:
        """Remove the files. May be repeated."""
        with ExitStack() as stack:
            if self.rows is not None:
                stack.callback(self.rows.discard)
            for sidecar in self.sidecars:
                stack.callback(sidecar.path.unlink, missing_ok=True)


def stage(rows: SpoolFile | None, index: SegmentIndex, totals: Totals, spool: Path) -> StagedFiles:
    """Sort the rows of a segment by order and position, and write its sidecars. Blocks.

    Args:
        rows: its rows in the order of its messages.
        index: the entries of all its messages.
        totals: its counts, with which the entries are compared.
        spool: the folder of the files.

    Raises:
        JobFailed: the entries are not those of its messages (`internal`).
        SpoolDamaged: a spool file has other bytes than were written to it.
        SpoolError: the spool cannot be written.
    """
    entries = IndexEntries.read(index)
    entries.check(totals, index.reasons)
    order = entries.order()
    with ExitStack() as undo:
        staged = StagedFiles(None, [])
        undo.callback(staged.discard)
        if rows is not None:
            staged.rows = _sorted_rows(rows, entries, order, spool)
        staged.sidecars.append(_sidecar(spool, RECORDS, _records(entries, order, index)))
        if index.rules.near is not None:
            staged.sidecars.append(_sidecar(spool, BANDS, _bands(entries)))
            if index.rules.keeps_signatures:
                staged.sidecars.append(_sidecar(spool, SIGNATURES, _signatures(entries)))
        undo.pop_all()
    return staged


def _sorted_rows(rows: SpoolFile, entries: IndexEntries, order: Numbers, spool: Path) -> SpoolFile:
    """The rows in this order of the entries: the same file where they are in it already."""
    ends = entries.fields["size"].cumsum(dtype="int64")
    starts = ends - entries.fields["size"]
    picked = order[entries.fields["status"][order] == ROW]
    if (picked[1:] > picked[:-1]).all():
        return rows
    # The sorted file has a hash of its own, which would prove bytes that were damaged before.
    if is_damaged(rows.path, rows.sha256):
        raise SpoolDamaged(f"the bytes of {rows.path} are not those that were written")
    found, batch, size = SpoolFile(spool), list[bytes](), 0
    with ExitStack() as undo:
        undo.callback(found.discard)
        with rows.path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as unsorted:
            for start, end in zip(starts[picked].tolist(), ends[picked].tolist(), strict=True):
                batch.append(unsorted[start:end])
                size += end - start
                if size >= _BYTES_AT_ONCE:
                    found.write(batch)
                    batch, size = [], 0
            found.write(batch)
        undo.pop_all()
    return found


def _sidecar(spool: Path, kind: SidecarKind, chunks: Iterator[Columns]) -> SidecarFile:
    try:
        handle, name = tempfile.mkstemp(prefix=f"{kind.name}-", suffix=".parquet", dir=spool)
        os.close(handle)
        path = Path(name)
        with ExitStack() as undo:
            undo.callback(path.unlink, missing_ok=True)
            lines = write_sidecar(path, kind, chunks)
            sha256 = file_sha256(path)
            undo.pop_all()
        return SidecarFile(kind, path, path.stat().st_size, sha256, lines)
    except OSError as error:
        raise spool_error(spool, error) from error


def _records(entries: IndexEntries, order: Numbers, index: SegmentIndex) -> Iterator[Columns]:
    """The lines of `records`, in this order of the entries, as chunks of columns."""
    import numpy as np

    rules, reasons = index.rules, [reason or None for reason in index.reasons]
    bounds = [rules.bounds.get(reason or "", Bounds(None, None)) for reason in reasons]
    least, most = (
        np.array([np.nan if (bound := one[side]) is None else bound for one in bounds]) for side in (0, 1)
    )
    types = {name: arrow_type(written) for name, written in RECORDS.columns}
    sizes = entries.fields["size"][order].astype("int64")
    offsets = sizes.cumsum() - sizes
    for start in range(0, len(order), _LINES_AT_ONCE):
        chosen = order[start : start + _LINES_AT_ONCE]
        part, rows = entries.fields[chosen], slice(start, start + len(chosen))
        is_other = part["status"] != ROW
        columns: dict[str, Any] = {
            name: part[name].copy() for name in ("position", "order", "group", "id_hash")
        }
        columns["id"] = arrow_texts(entries.ids(chosen), types["id"])
        columns["status"] = part["status"].astype("int8")
        columns["reason"] = arrow_chosen(reasons, part["reason"])
        lower, upper, measured = least[part["reason"]], most[part["reason"]], part["value"]
        # The bound that was broken, as `Bounds.broken_by`: comparisons with NaN are false.
        broken = np.where(measured < lower, lower, np.where(measured > upper, upper, np.nan))
        for name, values in (("value", measured), ("threshold", broken)):
            columns[name] = arrow_numbers(values, types[name], np.isnan(values))
        nothing = np.full(len(chosen), rules.content is None)
        columns["content"] = arrow_numbers(part["content"], types["content"], is_other | nothing)
        nothing = np.full(len(chosen), rules.sample_seed is None)
        columns["sample"] = arrow_numbers(part["sample"], types["sample"], nothing)
        places = {"offset": offsets[rows], "size": sizes[rows]}
        for name in ("words", "score", "offset", "size", "row_hash"):
            values = (places[name] if name in places else part[name]).astype(str(types[name]))
            columns[name] = arrow_numbers(values, types[name], is_other)
        yield [columns[name] for name in types]


def _bands(entries: IndexEntries) -> Iterator[Columns]:
    """The lines of `bands`: of one band after the other."""
    import numpy as np

    positions, hashes = entries.signed["position"], entries.signed["hashes"]
    for band in range(hashes.shape[1]):
        order = np.lexsort((positions, hashes[:, band]))
        yield np.full(len(order), band, "int16"), hashes[order, band], positions[order]


def _signatures(entries: IndexEntries) -> Iterator[Columns]:
    """The lines of `signatures`, by position."""
    order, of_type = entries.signed["position"].argsort(), arrow_type("binary")
    for start in range(0, len(order), _SIGNATURES_AT_ONCE):
        part = entries.signed[order[start : start + _SIGNATURES_AT_ONCE]]
        yield part["position"].copy(), arrow_texts([one.tobytes() for one in part["signature"]], of_type)
