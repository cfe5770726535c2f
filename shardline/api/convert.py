"""Conversion of the types of services to the public results."""

import time
from collections.abc import Callable
from dataclasses import asdict

from shardline.api.inputs import Job
from shardline.api.results import JobStatus, PreviewDocument, PreviewResult, Progress, RunResult, VerifyResult
from shardline.services.job_rates import RateEstimator
from shardline.services.job_view import JobView
from shardline.services.local_run import LocalRun
from shardline.services.preview import Preview
from shardline_common.dataset.verify import Report


def run_result(run: LocalRun) -> RunResult:
    """Return the result of a run.

    Raises:
        JobFailed: the job is not completed.
    """
    run.view.check_completed()
    state, manifest = run.view.state, run.manifest
    assert manifest is not None, "a completed run has a manifest"  # noqa: S101
    return RunResult(
        dataset=run.dataset,
        job_id=state.spec.job_id,
        digest=manifest.digest,
        rows=manifest.totals["rows"],
        bytes=manifest.totals["bytes"],
        shards=len(manifest.shards),
        source_documents=manifest.source.count,
        rejected=manifest.rejected,
        dead_letters=manifest.dead_letters,
        warnings=tuple(run.warnings),
    )


def preview_result(preview: Preview) -> PreviewResult:
    """Return the result of a preview."""
    sample = preview.sample
    return PreviewResult(
        source=preview.source,
        columns=preview.columns,
        exact=sample.complete,
        documents=preview.documents,
        rows=preview.rows,
        bytes=preview.bytes,
        sample=tuple(PreviewDocument(**asdict(one)) for one in sample.documents),
        rejected=sample.reasons(dead=False),
        dead_letters=sample.reasons(dead=True),
        mean_quality_score=sample.mean_quality_score,
    )


def verify_result(report: Report) -> VerifyResult:
    """Return the result of `verify`."""
    return VerifyResult(
        ok=report.ok,
        digest=report.digest,
        rows=report.rows,
        shards=report.shards,
        rejected=report.rejected,
        dead_letters=report.dead_letters,
        problems=tuple(report.problems),
        notes=tuple(report.notes),
        signed=report.signed,
        decision=report.decision,
        source=report.source,
    )


def job_status(view: JobView) -> JobStatus:
    """Return the status of a job."""
    state, progress = view.state, view.progress
    return JobStatus(
        job=Job.model_validate(state.spec.model_dump()),
        state=state.state.value,
        attempt=state.attempt,
        accepted_at=state.accepted_at,
        updated_at=state.updated_at,
        ratio=round(view.ratio, 4),
        stage=view.stage.value if view.stage else None,
        source_documents=state.source_count,
        produced=state.produced,
        chained=progress.chained,
        lag=view.lag,
        rows=progress.rows,
        bytes=progress.bytes,
        rejected=progress.rejected,
        dead_letters=progress.dead,
        code=state.code,
        message=state.message,
        warning=state.warning,
        source=state.source_facts,
    )


def progress_reporter(on_progress: Callable[[Progress], None] | None) -> Callable[[JobView], None]:
    """Return a function that takes the views of one job and calls `on_progress` with their progress."""
    if on_progress is None:
        return lambda _: None
    estimator = RateEstimator()

    def report(view: JobView) -> None:
        state, progress = view.state, view.progress
        rates = estimator.add(view, time.monotonic())
        on_progress(
            Progress(
                job_id=state.spec.job_id,
                state=state.state.value,
                attempt=state.attempt,
                ratio=round(view.ratio, 4),
                stage=view.stage.value if view.stage else None,
                source_documents=state.source_count,
                rows=progress.rows,
                bytes=progress.bytes,
                rejected=progress.rejected,
                dead_letters=progress.dead,
                lag=view.lag,
                documents_per_second=rates.documents,
                bytes_per_second=rates.bytes,
                seconds_left=rates.left,
            )
        )

    return report
