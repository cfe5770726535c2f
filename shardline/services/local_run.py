"""A job from settings to a dataset in this process, and the check of a finished dataset."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shardline.services.embedded import EmbeddedRun
from shardline.services.finished import datasets_below, read_manifest
from shardline.services.job_view import JobView
from shardline.services.output_lock import locked_output
from shardline.services.replace import delete_old_dataset, find_old_job
from shardline.services.splits import rows_of_splits, split_warnings
from shardline.services.wiring import CLOCK
from shardline.services.wiring.filter_files import file_fetcher
from shardline.services.wiring.producer import producer_policy
from shardline.services.wiring.signing import dataset_signer, signature_check
from shardline.services.wiring.sources import source_factory
from shardline.services.wiring.stores import (
    checked_address,
    dataset_opener,
    open_source_s3,
    open_store_at,
)
from shardline.services.wiring.webhook import open_receiver
from shardline_common.dataset.card import why_empty
from shardline_common.dataset.heads import read_heads
from shardline_common.dataset.leftovers import remove_leftovers
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.staged import remove_staged
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.errors import JobConflict, JobFailed, UsageError
from shardline_common.job.dead_letters import DeadLetterRecord
from shardline_common.job.findings import remarks
from shardline_common.job.names import Layout
from shardline_common.job.outcome import latest_attempt
from shardline_common.job.spec import JobSpec
from shardline_common.job.spec_diff import differing_fields, own_id_advice
from shardline_common.job.state import JobState, State
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.cores import available_cores, cores_for
from shardline_common.runtime.retry import retry_forever
from shardline_common.settings.load import Settings
from shardline_common.storage.probe import probe_create_only, probe_once_a_day
from shardline_common.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)
# The caller waits for the end of the run, which a webhook that is down must not delay for a day.
_NOTIFY_SECONDS = 60.0
# One process numbers what the others read: more of them would wait for it.
_MOST_PROCESSES = 4
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A run that ended: the job's last view, its latest dead letters, and the URI of its dataset.

    `manifest` is None unless the job is completed.
    """

    view: JobView
    dead_letters: list[DeadLetterRecord]
    dataset: str
    manifest: Manifest | None

    @property
    def splits(self) -> dict[str, int] | None:
        """The rows of each split of a completed job that has several; else None."""
        spec = self.view.state.spec
        if self.manifest is None or len(spec.splits) == 1:
            return None
        return rows_of_splits(spec, self.manifest.shards)

    @property
    def warnings(self) -> list[str]:
        """What a user should know about the dataset, as sentences."""
        state = self.view.state
        found = run_warnings(state) + split_warnings(state.spec, self.splits or {})
        decided = self.manifest.assembly.warnings if self.manifest and self.manifest.assembly else []
        return [*found, *decided]


async def run_job(
    spec: JobSpec,
    output: str,
    settings: Settings,
    on_view: Callable[[JobView], None],
    *,
    replace: bool = False,
) -> LocalRun:
    """Run a job into `output`: a directory, in which the job is locked, or `s3://bucket/prefix`.

    Relative paths of files start from the working directory. A run that was killed or cancelled is continued.
    With `replace` the dataset of another job that has the id is deleted first.

    Raises:
        JobConflict: the id belongs to another job.
        UsageError: a setting is wrong, another run writes the job to `output`, or the store does not honour
            create-only puts.
        ServiceUnavailable: the store cannot be reached, or the spool folder cannot be written or
            has less than SHARDLINE_SPOOL_RESERVE_BYTES free.
    """
    metrics, output = Metrics(), checked_address(output, written=True)
    async with (
        open_store_at(output, settings) as store,
        open_source_s3(settings, spec) as remote,
        open_receiver(settings, metrics, at_most=_NOTIFY_SECONDS) as receiver,
    ):
        with locked_output(output, spec.job_id) as exclusive:
            if output.startswith("s3://"):
                await probe_once_a_day(store, settings.aws_endpoint_url_s3, CLOCK)
            else:
                # One round: link(2) never replaces a file. A file system without it fails each time.
                await probe_create_only(store, rounds=1)
            if replace and (old := await find_old_job(store, spec)) is not None:
                await delete_old_dataset(store, old)
            if exclusive:
                await _remove_leftovers(store, spec)
            embedded = EmbeddedRun(
                store=store,
                clock=CLOCK,
                metrics=metrics,
                open_source=source_factory(
                    settings, Path(), confined=False, remote=remote, processes=_processes(settings)
                ),
                policy=producer_policy(settings),
                spool_bytes=settings.spool_bytes,
                uploads=settings.uploads,
                spool_dir=settings.spool_dir,
                spool_reserve=settings.spool_reserve_bytes,
                decide_memory=settings.decide_memory_bytes,
                decide_threads=cores_for(settings.processes),
                open_dataset=dataset_opener(settings, folders=True),
                fetch_file=file_fetcher(Path(), confined=False, remote=remote),
                receiver=receiver,
                sign=dataset_signer(settings),
            )
            result = await embedded.run(spec, on_view)
        layout, manifest = Layout.of(spec), None
        if result.view.state.state is State.COMPLETED:
            # The dataset is complete: an outage of the store now must not make the run a failed one.
            manifest = await retry_forever(
                partial(read_manifest, store, layout.manifest), CLOCK, "read the manifest"
            )
            await retry_forever(partial(remove_staged, store, spec), CLOCK, "remove the staged rows")
        dataset = f"{store.uri}/{layout.root}".rstrip("/")
        return LocalRun(result.view, result.dead_letters, dataset, manifest)


def _processes(settings: Settings) -> int:
    return settings.processes or min(available_cores(), _MOST_PROCESSES)


async def _remove_leftovers(store: ObjectStore, spec: JobSpec) -> None:
    layout = Layout.of(spec)
    try:
        removed = await remove_leftovers(store, layout, assembled=spec.assembled)
    except JobFailed:
        # The run itself meets what cannot be read, and ends with it.
        return
    if removed:
        _log.info("removed what a killed run left without a chain record: %s", ", ".join(removed))


async def kept_documents(spec: JobSpec, output: str, settings: Settings) -> int | None:
    """Count the documents in the finished segments of a run that was stopped; None: its dataset is finished.

    Raises:
        UsageError: a setting is wrong.
        StoreUnavailable: the store cannot be reached.
        JobFailed: a chain cannot be read.
    """
    layout = Layout.of(spec)
    async with open_store_at(output, settings) as store:
        if await find_old_job(store, spec) is not None:
            # The dataset there is another job's.
            return 0
        _, outcome = await latest_attempt(store, layout)
        if outcome is not None and outcome.ending == "completed":
            return None
        heads = await read_heads(store, layout, [None] * spec.total_partitions)
        return sum(head.next for head in heads if head is not None)


@dataclass(frozen=True, slots=True)
class OldDataset:
    """The dataset of another job with the same id: its URI, and the fields in which the jobs differ."""

    uri: str
    fields: Sequence[str]


async def find_old_dataset(spec: JobSpec, output: str, settings: Settings) -> OldDataset | None:
    """Return the dataset in `output` that `run_job` would replace. Nothing is written.

    Raises:
        UsageError: a setting is wrong, or the record of the id cannot be read.
        StoreUnavailable: the store cannot be reached.
    """
    async with open_store_at(checked_address(output, written=True), settings) as store:
        old = await find_old_job(store, spec)
        if old is None:
            return None
        return OldDataset(f"{store.uri}/{Layout.of(old).root}".rstrip("/"), differing_fields(old, spec))


def with_replace_hint(conflict: JobConflict, spec: JobSpec, option: str) -> JobConflict:
    """Return the error with the ways on of a run. `option` is what deletes the old dataset."""
    if not conflict.fields:
        # It is not known which dataset the option would delete.
        return conflict
    hint = f"{option} deletes the old dataset first; to keep both, {own_id_advice(spec)}"
    return JobConflict(str(conflict), hint=hint, fields=conflict.fields)


def run_warnings(state: JobState) -> list[str]:
    """Return the warnings of a completed job as sentences.

    They name the searches that were left out or down, the documents that were left out as deleted, the stores
    whose count is less than proven, and a dataset without rows.
    """
    sentences = [
        f"{meaning}: {', '.join(state.notes[note])}"
        for note, meaning in (
            ("same_files", "files with several names are read once"),
            ("left_out", "searches left out, which no store or table here can do"),
            ("degraded", "down, neither searched nor asked what is deleted"),
        )
        if state.notes.get(note)
    ]
    sentences += remarks(state.source_facts)
    if state.warning:
        query, quality = state.spec.query, state.spec.quality
        why = why_empty(state.source_count, filtered=bool(query.filters))
        if state.source_count and quality.min_score > 0:
            why += (
                f"; quality.min_score of the job is {quality.min_score}, and `shardline preview` shows the "
                "scores"
            )
        sentences.append(f"{state.warning}: {why}")
    return sentences


async def verify_dataset(
    uri: str,
    settings: Settings,
    on_shard: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    digest: str | None = None,
    key: Path | None = None,
    processes: int | None = None,
    decision: bool = False,
) -> Report:
    """Read every byte of the dataset in the folder `uri` and check its proof.

    The shards of a large dataset are checked by several processes.

    Args:
        uri: the dataset's folder: a directory or `s3://bucket/prefix`.
        settings: the settings of the store.
        on_shard: called after each shard with the number of shards checked and of all shards.
        digest: the digest that the dataset must have; None accepts any.
        key: a file with the public Ed25519 key (PEM) that must have signed the dataset; None accepts a
            dataset without a signature.
        processes: the largest number of processes; None takes that of the settings, else one for each core.
        decision: decide an assembled dataset again, from its sidecars.

    Raises:
        UsageError: a setting is wrong, the digest is none, the key cannot be read, or `decision` needs a
            package that is not installed.
        SpoolError: the folder for temporary files cannot be written.
        StoreUnavailable: the store cannot be reached.
    """
    # `run` needs neither, and imports this module.
    from shardline.services.decision_check import NOT_RECOMPUTED, decision_checker  # noqa: PLC0415
    from shardline.services.segment_processes import open_checks  # noqa: PLC0415

    if digest is not None and not _DIGEST.fullmatch(digest):
        hint = "`verify --json` and manifest.json have a dataset's digest"
        raise UsageError(f"'{digest[:100]}' is no digest: it has 64 digits of 0-9 and a-f", hint=hint)
    is_signed = None if key is None else signature_check(key)
    async with open_store_at(uri, settings) as store:
        at_most = cores_for(processes or settings.processes)
        checks = partial(open_checks, store, uri, settings, at_most)
        report = await Verifier(
            store,
            "",
            on_shard,
            digest=digest,
            is_signed=is_signed,
            open_checks=checks,
            check_decision=decision_checker(settings, recompute=decision),
        ).run()
        if not report.digest and (below := await datasets_below(store)):
            report.notes.append(f"there are datasets in folders below this one: {', '.join(below)}")
        said = any(note.startswith(NOT_RECOMPUTED) for note in report.notes)
        if decision and report.ok and not report.decision and not said:
            report.notes.append(f"{NOT_RECOMPUTED}: the dataset is not assembled")
        return report
