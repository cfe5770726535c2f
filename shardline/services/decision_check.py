"""What `verify` checks of an assembled dataset beside its hashes: the decision, from the sidecars."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shardline.services.wiring.stores import dataset_opener
from shardline_common.assembly.decision_check import (
    Limits,
    Number,
    StoredDecision,
    decision_problems,
    recomputed_problems,
)
from shardline_common.assembly.extra import missing_packages
from shardline_common.assembly.inputs import Input, Inputs
from shardline_common.dataset.contents import DatasetContents
from shardline_common.dataset.decision import DecisionHead
from shardline_common.dataset.decision_rules import Rules
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.read import StoredBytes, download
from shardline_common.dataset.verify import CheckDecision, Findings
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing, ServiceUnavailable, UsageError
from shardline_common.job.names import Layout
from shardline_common.job.plan import Plan, read_plan
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.cores import cores_for
from shardline_common.runtime.tasks import gather_limited
from shardline_common.runtime.threads import run_in_thread
from shardline_common.settings.load import Settings
from shardline_consumer.assembly.other_datasets import ContentsReader

_DOWNLOADS_AT_ONCE = 4
# Read again once, at once: a person waits for the report.
_PAUSES = (0.0,)
# What is damaged is found many times.
_MAX_PROBLEMS = 20


def decision_checker(settings: Settings, *, recompute: bool) -> CheckDecision:
    """What checks the decision of an assembled dataset.

    Args:
        settings: the settings of the stores, the memory of the engine, and the folder for temporary files.
        recompute: decide again, and compare to the byte.
    """

    async def check(
        store: ObjectStore,
        layout: Layout,
        manifest: Manifest,
        contents: DatasetContents,
        row_hashes: Mapping[Number, str],
    ) -> Findings:
        missing = missing_packages()
        if missing and recompute:
            raise UsageError(
                f"the decision cannot be recomputed without {' and '.join(missing)}",
                hint="install Shardline with its extra `assembly`",
            )
        if missing:
            names = " and ".join(missing)
            return Findings(notes=[NOT_CHECKED.format(names=names)])
        with tempfile.TemporaryDirectory(prefix="verify-", dir=settings.spool_dir) as name:
            work = _Check(store, layout, manifest, contents, row_hashes, settings, Path(name))
            try:
                return await work.run(recompute=recompute)
            except (JobFailed, ObjectMissing) as error:
                return Findings([str(error)])

    return check


NOT_RECOMPUTED = "the decision was not recomputed"
NOT_CHECKED = (
    "what the sidecars hold was not checked, nor the drop lists and the order of the rows, because {names} "
    "is not installed: install Shardline with its extra `assembly`"
)
"""The note of a report without the packages of the extra."""


@dataclass(frozen=True, slots=True)
class _Check:
    store: ObjectStore
    layout: Layout
    manifest: Manifest
    contents: DatasetContents
    row_hashes: Mapping[Number, str]
    settings: Settings
    folder: Path

    async def run(self, *, recompute: bool) -> Findings:
        assembled = self.contents.assembled
        assert assembled is not None, "an assembled dataset has a decision"  # noqa: S101
        kinds = ("records", "bands", "signatures") if recompute else ("records",)
        sidecars = {kind: await self._fetch_sidecars(kind) for kind in kinds}
        stored = await self._fetch_decision(assembled.head)
        inputs = Inputs(
            totals=self.contents.landed,
            records=sidecars["records"],
            bands=sidecars.get("bands", ()),
            signatures=sidecars.get("signatures", ()),
        )
        threads = cores_for(self.settings.processes)
        limits = Limits(self.settings.decide_memory_bytes, threads)
        check = partial(decision_problems, self.folder, stored, inputs, self.row_hashes, limits)
        problems = await run_in_thread(partial(_some, check))
        if not recompute:
            return Findings(problems)
        plan = await read_plan(self.store, self.layout, _PAUSES)
        against = await self._read_against(plan, limits)
        if isinstance(against, str):
            return Findings(problems, [f"{NOT_RECOMPUTED}: {against}"])
        whole = Inputs(inputs.totals, inputs.records, inputs.bands, inputs.signatures, against)
        rules = Rules.of(self.manifest.job, [one["digest"] for one in plan.against])
        again = partial(recomputed_problems, self.folder, stored, whole, rules, limits)
        return Findings([*problems, *await run_in_thread(partial(_some, again))], recomputed=True)

    async def _read_against(self, plan: Plan, limits: Limits) -> list[list[Input]] | str:
        """The contents of the other datasets; or why they cannot be read."""
        dedup, opener = self.manifest.job.dedup, dataset_opener(self.settings, folders=True)
        reader = ContentsReader(
            opener,
            self.folder,
            ignore_case=dedup is not None and dedup.ignore_case,
            memory_bytes=limits.memory_bytes,
            threads=limits.threads,
        )
        try:
            return await reader.read(plan)
        except (JobFailed, ServiceUnavailable) as error:
            return str(error)

    async def _fetch_sidecars(self, kind: str) -> list[Input]:
        named = [getattr(record.objects, kind) for record in self.contents.records if record.objects]
        items = [item for item in named if item is not None]
        fetches = [partial(self._fetch, item.key, self._stored(item.key)) for item in items]
        paths = await gather_limited(fetches, _DOWNLOADS_AT_ONCE)
        return [Input(item.key, path, item.plain_sha256) for item, path in zip(items, paths, strict=True)]

    async def _fetch_decision(self, head: DecisionHead) -> StoredDecision:
        drops = dict[Number, Path]()
        places = {split.name: place for place, split in enumerate(head.splits)}
        for split, number in head.drop_lists():
            key = self.layout.drops(split, number).removeprefix(self.layout.root)
            path = await self._fetch(key, self._stored(key), f"{places[split]}-{number}.jsonl")
            drops[split, number] = path
        if head.moved is None:
            return StoredDecision(head, drops, None)
        key = self.layout.moved.removeprefix(self.layout.root)
        return StoredDecision(head, drops, await self._fetch(key, self._stored(key)))

    def _stored(self, key: str) -> StoredBytes:
        """The bytes that were read before, and are named by the manifest."""
        try:
            return self.contents.objects[key]
        except KeyError:
            raise ObjectMissing(f"{key} could not be read") from None

    async def _fetch(self, key: str, expected: StoredBytes, name: str | None = None) -> Path:
        path = self.folder / (name or key.replace("/", "-"))

        wrong = JobFailed(FailureCode.DATASET_DAMAGED, f"{key} has other bytes than it had before")
        await download(self.store, self.layout.root + key, path, expected, wrong, _PAUSES)
        return path


def _some(problems: Callable[[], Iterator[str]]) -> Sequence[str]:
    found = []
    for problem in problems():
        found.append(problem)
        if len(found) == _MAX_PROBLEMS:
            break
    return found
