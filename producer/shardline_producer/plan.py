"""Planning: the source and the columns are frozen once per job, before the first message."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from shardline_common.dataset.contents import list_sizes, not_empty
from shardline_common.dataset.finished import OpenDataset, read_finished
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.columns import REPAIRED, Columns, declared, distinct, infer
from shardline_common.job.filter_loading import FetchFile, load_filters
from shardline_common.job.findings import MIXED_IDS, SLICES
from shardline_common.job.names import Layout
from shardline_common.job.plan import RULES, FrozenFilter, Plan, read_plan
from shardline_common.job.spec import FilesSource, JobSpec
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import SYSTEM_CLOCK
from shardline_common.runtime.create_or_read import create_or_read
from shardline_common.runtime.waits import log_wait
from shardline_common.telemetry.tracing import span
from shardline_producer.dead_letter_limits import check_sample
from shardline_producer.sources.query_filters import check_types
from shardline_producer.sources.source import Document, InvalidDocument, Source

_SAMPLE_DOCUMENTS = 10_000
_SAMPLE_BYTES = 16 * 1024 * 1024


async def plan_job(
    spec: JobSpec,
    source: Source,
    store: ObjectStore,
    clock: Clock = SYSTEM_CLOCK,
    open_dataset: OpenDataset | None = None,
    fetch: FetchFile | None = None,
) -> Plan:
    """The job's plan: the one in the store, else a new one, which is created in the store.

    `open_dataset` opens the datasets of `dedup.against`, and `fetch` copies the files that filters name;
    None: this process reads none.

    Raises:
        JobFailed: the source cannot be read, a filter names a field that it does not have, a dataset to
            compare with is not finished, the folder of the dataset is not empty, or the store refuses the
            plan and has none (`store_inconsistent`).
        SourceUnavailable, StoreUnavailable: try again later.
    """
    key = Layout.of(spec).plan
    with span("plan"):
        try:
            return await read_plan(store, Layout.of(spec))
        except ObjectMissing:
            foreign = await _foreign_keys(store, Layout.of(spec))
            if foreign:
                # If this producer was paused since, another one may have planned the job, and workers may
                # have begun. Their objects must not fail it.
                try:
                    return await read_plan(store, Layout.of(spec))
                except ObjectMissing:
                    raise not_empty(Layout.of(spec), foreign) from None
            with log_wait(f"the plan of {spec.job_id}: its source is listed and sampled"):
                plan = await make_plan(spec, source, fetch)
                if spec.slices > 1:
                    await _cut(plan, spec, source)
                plan.against = await _frozen_datasets(spec, open_dataset)
        create = partial(store.create, key, plan.encode())
        read = partial(read_plan, store, Layout.of(spec))
        existing = await create_or_read(create, read, key, clock, confirm=True)
        return plan if existing is None else existing


async def _foreign_keys(store: ObjectStore, layout: Layout) -> list[str]:
    """The keys, relative to the folder, that the dataset of a job without a plan does not have."""
    # It has only plan pages of a killed planner, and outcomes of attempts that were cancelled in the queue.
    own = ("_state/plan/", layout.outcomes.removeprefix(layout.root))
    return sorted(key for key in await list_sizes(store, layout) if not key.startswith(own))


async def _frozen_datasets(spec: JobSpec, open_dataset: OpenDataset | None) -> list[dict[str, str]]:
    """Address and digest of each dataset of `dedup.against`. Raises as `read_finished`."""
    found = []
    for address in spec.dedup.against if spec.dedup is not None else ():
        if open_dataset is None:
            raise JobFailed(FailureCode.SOURCE_INVALID, f"dedup.against: this process cannot read {address}")
        async with open_dataset(address) as other:
            manifest = await read_finished(other, address)
        found.append({"address": address, "digest": manifest.digest})
    return found


async def _cut(plan: Plan, spec: JobSpec, source: Source) -> None:
    """Add the ranges of the source to a plan, one for each slice of the job.

    Raises: as `Source.cut`.
    """
    cuts = await source.cut(plan.frozen, spec.slices)
    plan.slices = [dict(part) for part in cuts.ranges]
    if cuts.reason:
        plan.notes[SLICES] = f"{len(cuts.ranges)} of {spec.slices} slices have documents: {cuts.reason}"


async def make_plan(spec: JobSpec, source: Source, fetch: FetchFile | None = None) -> Plan:
    """A plan of the source, and of the filters of the job, as they are now. Nothing is written.

    `fetch` copies the files that filters name; None: this process reads none.

    Raises:
        JobFailed: the source cannot be read, a filter names a field that it does not have, or its documents
            lack the fields of id and text (`all_dead`).
        SourceUnavailable: try again later.
    """
    filters = await _frozen_filters(spec, fetch)
    frozen = await source.freeze()
    declaration = source.declared(frozen)
    wanted = spec.format.metadata
    # Columns that the job names have their types, however many others there are.
    at_most = spec.format.max_columns if wanted is None else None
    if declaration.columns is not None:
        source.check_query(list(declaration.columns))
        found = _first_columns(declaration.columns, declaration.without_column, at_most)
        notes = dict[str, Any]()
    else:
        found, notes = await _sampled(spec, source, frozen, at_most)
    columns = distinct(found if wanted is None else declared(wanted, found))
    if spec.quality.repair is not None:
        columns = _with_repaired(columns)
    return Plan(
        frozen,
        columns.to_json(),
        {**declaration.notes, **notes},
        RULES,
        dict(columns.renamed),
        columns.without_column,
        filters=filters,
    )


def _with_repaired(columns: Columns) -> Columns:
    """The columns, and the one that says whether the text of a row was repaired."""
    if REPAIRED in {name.casefold() for name in columns.types}:
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"quality.repair: the documents have a field {REPAIRED}, which is the column of repaired texts",
            hint="name the columns that are needed in format.metadata",
        )
    return replace(columns, types={**columns.types, REPAIRED: "bool"})


async def _frozen_filters(spec: JobSpec, fetch: FetchFile | None) -> list[FrozenFilter]:
    with tempfile.TemporaryDirectory(prefix="filters-") as folder:
        return [one.frozen for one in await load_filters(spec, fetch, Path(folder))]


def _first_columns(types: Mapping[str, str], without_column: int, at_most: int | None) -> Columns:
    """The first columns that a source declares: which fields are rare is not known before they are read."""
    kept = dict(list(types.items())[:at_most])
    return Columns(kept, without_column=without_column + len(types) - len(kept))


@dataclass(slots=True)
class _Sample:
    """The first documents of a source. `leading`: the dead letters before the first of them."""

    documents: list[Document] = field(default_factory=list)
    leading: list[InvalidDocument] = field(default_factory=list)
    complete: bool = False


async def _sampled(
    spec: JobSpec, source: Source, frozen: list[dict[str, Any]], at_most: int | None
) -> tuple[Columns, dict[str, Any]]:
    """The columns of the first documents, and what is to be noted about them."""
    sample = await _sample(source, frozen)
    check_sample(spec, sample.leading, usable=bool(sample.documents), complete=sample.complete)
    # A dict keeps the order of appearance, a set does not.
    fields = list(dict.fromkeys(name for document in sample.documents for name in document.metadata))
    if sample.documents:
        source.check_query(fields)
        if isinstance(spec.source, FilesSource):
            # A database compares in its own way.
            check_types(spec.query.filters, sample.documents)
    mixed = _mixed_ids(sample.documents)
    return infer(sample.documents, at_most), {MIXED_IDS: mixed} if mixed else {}


def _mixed_ids(documents: Sequence[Document]) -> int:
    """How many ids are those of a document with a number, such as 12, and of another with text, as "12"."""
    numbers = {one.id for one in documents if one.id_is_number}
    return len({one.id for one in documents if not one.id_is_number and one.id in numbers})


async def _sample(source: Source, frozen: list[dict[str, Any]]) -> _Sample:
    sample = _Sample()
    count = size = 0
    async with aclosing(source.sample(frozen)) as batches:
        async for batch in batches:
            for item in batch:
                if count >= _SAMPLE_DOCUMENTS or size >= _SAMPLE_BYTES:
                    return sample
                count += 1
                size += item.size
                if isinstance(item.content, Document):
                    sample.documents.append(item.content)
                elif not sample.documents:
                    sample.leading.append(item.content)
    sample.complete = True
    return sample
