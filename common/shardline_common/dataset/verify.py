"""`verify`: read every byte of a finished dataset again and check it against its manifest and chains."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import orjson

from shardline_common.dataset.assembled import read_assembled
from shardline_common.dataset.chain import Chain, ChainRecord, Totals
from shardline_common.dataset.conservation import partition_problem
from shardline_common.dataset.contents import (
    PUBLISHED,
    DatasetContents,
    keys_by_chain,
    list_sizes,
    read_plan_objects,
)
from shardline_common.dataset.decision import Reason
from shardline_common.dataset.manifest import (
    Manifest,
    ProducedPartition,
    differing_fields,
    manifest_shards,
    sums_json,
)
from shardline_common.dataset.read import StoredBytes
from shardline_common.dataset.segment_check import CheckedSegment, SegmentChecker, SegmentRules
from shardline_common.dataset.segment_checks import ChecksInOrder, OpenChecks, SegmentChecks
from shardline_common.dataset.shard_record import ShardRecord
from shardline_common.dataset.success import SuccessMarker, hash_of
from shardline_common.errors import JobFailed, ObjectMissing, explain
from shardline_common.job.columns import Columns
from shardline_common.job.findings import uncertain
from shardline_common.job.names import Layout, attempt_of_outcome
from shardline_common.job.outcome import read_outcome
from shardline_common.job.plan import read_plan
from shardline_common.job.reasons import unknown_reasons
from shardline_common.ports.store import ObjectStore

_MAX_PROBLEMS = 20
# What is damaged is read again once, at once: a person waits for the report.
_PAUSES = (0.0,)
NOT_COVERED = (
    "version 0.1 wrote this dataset: its proof covers the rows, their counts and the digest, but neither the "
    "card, the rejected documents, the outcome and the plan, nor objects that were added, nor the fields of "
    "the manifest that say who made it, when and why"
)
"""What the proof of a version 1 manifest does not cover."""
IsSigned = Callable[[bytes | None, bytes], bool]
"""Called with a signature and the signed bytes: whether the signature is that of the expected key."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the check of a decision found: sentences, and whether the decision was recomputed."""

    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    recomputed: bool = False


CheckDecision = Callable[
    [ObjectStore, Layout, Manifest, DatasetContents, Mapping[tuple[str, int], str]], Awaitable[Findings]
]
"""Checks the decision of an assembled dataset against its sidecars; the last is `CheckedSegment.row_hashes`.

Raises StoreUnavailable.
"""


@dataclass(slots=True)
class Report:
    """The result of `verify`. `problems` are up to 20 sentences in reading order; `ok` when there is none.

    `source` is that of the manifest: type, count, and how each store's count is proven. `notes` say what the
    proof does not cover. `signed`: `_SUCCESS` has a signature. `decision`: the decision of an assembled
    dataset was recomputed.
    """

    ok: bool = False
    digest: str = ""
    rows: int = 0
    shards: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    signed: bool = False
    decision: bool = False

    def to_json(self) -> dict[str, Any]:
        """The report as `verify --json` prints it."""
        return asdict(self)


class Verifier:
    """Checks one dataset.

    Args:
        store: the store that holds it.
        root: key of the folder with manifest.json, ending with a slash; "" is the root of the store.
        on_shard: called after each shard with the number of shards read, and the number of all shards.
        digest: the digest that the dataset must have; None accepts any.
        is_signed: checks the signature of `_SUCCESS`; None accepts a dataset without one.
        open_checks: opens what checks the segments; None checks one after the other here.
        check_decision: checks the decision of an assembled dataset; None leaves it out.
    """

    def __init__(
        self,
        store: ObjectStore,
        root: str,
        on_shard: Callable[[int, int], None] = lambda _done, _all: None,
        *,
        digest: str | None = None,
        is_signed: IsSigned | None = None,
        open_checks: OpenChecks | None = None,
        check_decision: CheckDecision | None = None,
    ) -> None:
        self._store = store
        self._root = root
        self._on_shard = on_shard
        self._expected_digest = digest
        self._is_signed = is_signed
        self._open_checks = open_checks or self._checks_here
        self._check_decision = check_decision
        self._row_hashes = dict[tuple[str, int], str]()
        self._report = Report()
        self._contents = DatasetContents()
        self._shards_read = 0

    async def run(self) -> Report:
        """Read and check the whole dataset. A fault is a problem in the report, not an error.

        1. Read the manifest. 2. Read the chains, and every object that they name. 3. Compare the manifest
        with them. 4. Check the decision of an assembled dataset against its sidecars. 5. Check `_SUCCESS`,
        and what it names. 6. Look for other objects in the folder.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        report = self._report
        # 1.
        body = await self._read("manifest.json", "the dataset is not finished, or this is not its folder")
        manifest = self._decode(body) if body is not None else None
        if body is None or manifest is None:
            return report
        layout = Layout(self._root, manifest.job.output.compression)
        sizes = await list_sizes(self._store, layout) if manifest.version > 1 else {}
        try:
            # 2. and 3.
            await self._check_chains(layout, manifest, sizes)
            if manifest.version > 1:
                self._contents.objects |= await read_plan_objects(self._store, layout, sizes)
                await self._check_manifest(layout, manifest, orjson.loads(body))
        except (JobFailed, ObjectMissing) as error:
            self._add_problem(str(error))
        # 4.
        await self._check_assembly(layout, manifest)
        # 5.
        marker = await self._check_success(manifest, body)
        # 6.
        if manifest.version == 1:
            report.source = orjson.loads(body)["source"]
            report.notes.append(NOT_COVERED)
        else:
            self._check_folder(sizes, marker)
        report.ok = not report.problems
        return report

    def _checks_here(self, rules: SegmentRules, _: int) -> AbstractAsyncContextManager[SegmentChecks]:
        return nullcontext(SegmentChecks(SegmentChecker(self._store, rules).check))

    def _add_problem(self, text: str) -> None:
        if len(self._report.problems) < _MAX_PROBLEMS:
            self._report.problems.append(text)

    async def _read(self, key: str, meaning: str) -> bytes | None:
        try:
            return await self._store.get(self._root + key)
        except ObjectMissing:
            self._add_problem(f"there is no {key}: {meaning}")
            return None

    def _decode(self, body: bytes) -> Manifest | None:
        try:
            return Manifest.decode(body)
        except JobFailed as error:
            self._add_problem(explain(error))
            return None

    async def _check_chains(self, layout: Layout, manifest: Manifest, sizes: Mapping[str, int]) -> None:
        spec, columns = manifest.job, Columns.from_json(manifest.rows_schema.columns)
        rules = SegmentRules(layout, columns, spec.max_document_bytes, manifest.version == 1)
        if [part.partition for part in manifest.partitions] != list(range(spec.total_partitions)):
            self._add_problem("the manifest lists other partitions than the job has")
            return
        row_bytes = manifest.totals.get("bytes")
        async with self._open_checks(rules, row_bytes if isinstance(row_bytes, int) else 0) as checks:
            segments = ChecksInOrder(checks, partial(self._on_segment, len(manifest.shards)))
            try:
                await self._check_segments(layout, manifest, sizes, segments)
            except (JobFailed, ObjectMissing):
                # A chain cannot be read further. The problems of the segments before it come first.
                await segments.finish()
                raise
            finally:
                await segments.stop()
        self._check_totals(layout, manifest)

    async def _check_segments(
        self, layout: Layout, manifest: Manifest, sizes: Mapping[str, int], segments: ChecksInOrder
    ) -> None:
        listed = keys_by_chain(layout, sizes) if manifest.version > 1 else None
        contents = self._contents
        for produced in manifest.partitions:
            committed = Totals()
            chain = Chain(self._store, layout, produced.partition, _PAUSES)
            keys = None if listed is None else listed.get(layout.chain(produced.partition), [])
            async for record, key, body in chain.stored_records(keys):
                contents.records.append(record)
                contents.objects[key.removeprefix(layout.root)] = StoredBytes.of(body)
                committed = record.upto
                await segments.add(record)
            segments.then(partial(self._check_partition, produced, committed))
        if manifest.job.assembled:
            # A segment that cannot be read comes first.
            await segments.finish()
            contents.assembled, objects = await read_assembled(self._store, layout, sizes, _PAUSES)
            contents.objects |= objects
            for problem in contents.assembled.problems(contents.records):
                self._add_problem(problem)
            for shard in contents.assembled.shards:
                await segments.add(shard)
        await segments.finish()

    def _on_segment(self, shards: int, record: ChainRecord | ShardRecord, checked: CheckedSegment) -> None:
        self._contents.objects.update(checked.objects)
        for problem in checked.problems:
            self._add_problem(problem)
        if isinstance(record, ShardRecord) and checked.row_hashes is not None:
            self._row_hashes[record.split, record.number] = checked.row_hashes
        if isinstance(record, ShardRecord) or (record.segment.rows and not record.is_staged):
            self._shards_read += 1
            self._on_shard(self._shards_read, shards)

    async def _check_assembly(self, layout: Layout, manifest: Manifest) -> None:
        contents, report = self._contents, self._report
        if self._check_decision is None or contents.assembled is None:
            return
        found = await self._check_decision(self._store, layout, manifest, contents, self._row_hashes)
        for problem in found.problems:
            self._add_problem(problem)
        report.notes += found.notes
        report.decision = found.recomputed

    def _check_partition(self, produced: ProducedPartition, committed: Totals) -> None:
        problem = partition_problem(produced.partition, produced.messages, produced.hash_sum, committed)
        if problem is not None:
            self._add_problem(problem)

    def _check_totals(self, layout: Layout, manifest: Manifest) -> None:
        report, contents = self._report, self._contents
        sums, digest = contents.totals, contents.digest
        shards = manifest_shards(contents, layout)
        report.digest, report.rows, report.shards = digest, sums.rows, len(shards)
        report.rejected, report.dead_letters = sums.rejected, sums.dead
        if sums.records != manifest.source.count:
            self._add_problem(
                f"the source counted {manifest.source.count} documents, the chain {sums.records}"
            )
        if shards != manifest.shards:
            self._add_problem("the manifest lists other shards than the chain")
        splits = {split: sums_json(part) for split, part in contents.splits.items()}
        if (manifest.totals, manifest.splits) != (sums_json(sums), splits):
            self._add_problem("the manifest's totals are not those of the chain")
        if (manifest.rejected, manifest.dead_letters) != (sums.rejected, sums.dead):
            self._add_problem("the manifest's rejections or dead letters are not those of the chain")
        if digest != manifest.digest:
            self._add_problem(f"the digest is {digest}, the manifest says {manifest.digest}")
        if self._expected_digest not in (None, digest):
            self._add_problem(f"the digest is {digest}, not the expected {self._expected_digest}")
        if manifest.job.digest != manifest.spec_digest:
            self._add_problem(
                f"the spec digest of the manifest's job is {manifest.job.digest}, "
                f"the manifest says {manifest.spec_digest}"
            )

    async def _check_manifest(self, layout: Layout, manifest: Manifest, found: Mapping[str, Any]) -> None:
        """Build the manifest again from plan, outcome and contents, and name the fields that differ."""
        plan = await read_plan(self._store, layout, _PAUSES)
        outcome = await read_outcome(self._store, layout, manifest.attempt, _PAUSES)
        if outcome is None or outcome.ending != "completed":
            self._add_problem(f"attempt {manifest.attempt} of the manifest has no outcome 'completed'")
            return
        decided = [reason.value for reason in Reason] if manifest.job.assembled else []
        if unknown := unknown_reasons(self._contents.totals.rejected, plan, decided):
            self._add_problem(
                f"documents are rejected for {', '.join(unknown)}, which no filter of the plan gives"
            )
        differing = differing_fields(found, manifest.job, outcome, plan, self._contents)
        if "source" not in differing:
            self._report.source = found["source"]
            self._report.notes += uncertain(found["source"])
        for name in differing:
            self._add_problem(f"manifest.json: '{name}' is not what job, plan, outcome and chains give")

    async def _check_success(self, manifest: Manifest, body: bytes) -> SuccessMarker | None:
        content = await self._read("_SUCCESS", "the dataset is not finished")
        if content is None:
            return None
        try:
            marker = SuccessMarker.decode(content)
        except JobFailed as error:
            self._add_problem(str(error))
            return None
        if marker.digest != self._report.digest:
            self._add_problem("_SUCCESS names another digest")
        self._report.signed = marker.signature is not None
        if self._is_signed is not None and not self._is_signed(marker.signature, marker.signed_bytes):
            self._add_problem("_SUCCESS has no signature of this key")
        # Version 0.1 writes no hashes. But a manifest of version 0.1 may have been published by a later one.
        if manifest.version == 1 and not marker.hashes:
            return marker
        if marker.hashes.get("manifest.json") != hash_of(body):
            self._add_problem("manifest.json is not the one that _SUCCESS names")
        if "README.md" not in marker.hashes:
            self._add_problem("_SUCCESS does not name README.md")
        await self._check_named(marker)
        return marker

    async def _check_named(self, marker: SuccessMarker) -> None:
        for key, expected in marker.hashes.items():
            if key not in PUBLISHED and not attempt_of_outcome(key):
                self._add_problem(f"_SUCCESS names {key!r}, which the manifest would name")
            elif key != "manifest.json":
                found = await self._read(key, "_SUCCESS names it")
                if found is not None and hash_of(found) != expected:
                    # Once more: one damaged answer of the store is no fault of the dataset.
                    found = await self._read(key, "_SUCCESS names it")
                if found is not None and hash_of(found) != expected:
                    self._add_problem(f"{key}: its sha256 is {hash_of(found)}, _SUCCESS says {expected}")

    def _check_folder(self, sizes: Mapping[str, int], marker: SuccessMarker | None) -> None:
        for key in self._contents.foreign_keys(sizes):
            self._add_problem(f"{key} does not belong to the dataset")
        if marker is None:
            return
        for key in sorted(sizes.keys() - marker.hashes.keys()):
            if attempt_of_outcome(key):
                self._add_problem(f"{key} was written after _SUCCESS, which does not name it")
