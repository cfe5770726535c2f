"""run, preview, verify, and the requests to a running system. Arguments are validated at the call."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from shardline.api.convert import job_status, preview_result, progress_reporter, run_result, verify_result
from shardline.api.inputs import JobLike, settings_of, spec_of
from shardline.api.results import JobStatus, PreviewResult, Progress, RunResult, VerifyProgress, VerifyResult
from shardline.services.client import open_client
from shardline.services.local_run import run_job, verify_dataset, with_replace_hint
from shardline.services.preview import preview_job
from shardline_common.errors import JobConflict, UsageError
from shardline_common.job.state import State

_log = logging.getLogger("shardline")


async def run(
    job: JobLike,
    *,
    output: str | os.PathLike[str] = "datasets",
    replace: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunResult:
    """Run a whole job in this process, without Kafka, as `shardline run` does.

    A local `output` is locked during the run. When the call is cancelled or the process is killed, the
    finished segments are kept, and the same call continues behind them. An error of `on_progress` stops the
    run in the same way and is raised.

    Args:
        job: the job; relative paths of files start from the working directory.
        output: a directory, or `s3://bucket/prefix`. The dataset is the folder `<name>/<job_id>` in it.
        replace: delete the dataset of another job under the same id first. It is final, and not asked.
        settings: settings by name, used before the environment, .env and shardline.toml.
        on_progress: called about five times a second, in the event loop.

    Raises:
        JobFailed: the job failed; `code` and the message say why.
        JobConflict: the id belongs to another job in `output`; `fields` names what differs.
        UsageError: the job or a setting is wrong, or another run writes to `output`.
        ServiceUnavailable: a store cannot be reached, or the spool folder cannot be written.
    """
    found = settings_of(settings)
    spec, report = spec_of(job, found), progress_reporter(on_progress)
    try:
        return run_result(await run_job(spec, os.fspath(output), found, report, replace=replace))
    except JobConflict as conflict:
        raise with_replace_hint(conflict, spec, "replace=True") from None


async def preview(
    job: JobLike,
    *,
    documents: int = 1000,
    seconds: float = 20.0,
    settings: Mapping[str, object] | None = None,
) -> PreviewResult:
    """Read the first documents of a job and estimate its result. Nothing is written.

    Args:
        job: the job; relative paths of files start from the working directory.
        documents: the largest number of documents to read.
        seconds: the longest time to read, in seconds, after planning.
        settings: settings by name, used before the environment, .env and shardline.toml.

    Raises:
        JobFailed: the job would fail at planning.
        UsageError: the job or a setting is wrong, or a limit is not above 0.
        ServiceUnavailable: a store cannot be reached.
    """
    if documents < 1 or seconds <= 0:
        raise UsageError(f"a preview of {documents} documents in {seconds} s reads nothing")
    found = settings_of(settings)
    spec = spec_of(job, found)
    return preview_result(await preview_job(spec, found, documents=documents, seconds=seconds))


async def verify(
    uri: str | os.PathLike[str],
    *,
    digest: str | None = None,
    key: str | os.PathLike[str] | None = None,
    processes: int | None = None,
    decision: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[VerifyProgress], None] | None = None,
) -> VerifyResult:
    """Read every byte of a finished dataset and check its proof. A broken dataset is a result, not an error.

    Args:
        uri: the dataset's folder: a directory, or `s3://bucket/prefix/…`.
        digest: the digest that the dataset must have.
        key: a file with the public Ed25519 key (PEM) that must have signed the dataset.
        processes: the largest number of processes that check a large dataset; None takes the setting, else
            one for each core.
        decision: decide an assembled dataset again from its sidecars, and compare to the byte.
        settings: settings by name, used before the environment, .env and shardline.toml.
        on_progress: called after each shard, in the event loop.

    Raises:
        UsageError: a setting, the digest, the key or the number of processes is wrong, or `decision` needs
            the extra `assembly`.
        ServiceUnavailable: the store cannot be reached.
    """

    def on_shard(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(VerifyProgress(shards=done, total=total))

    if processes is not None and processes < 1:
        raise UsageError(f"{processes} processes check nothing", hint="1 checks in this process alone")
    path = None if key is None else Path(key)
    found = settings_of(settings)
    report = await verify_dataset(
        os.fspath(uri), found, on_shard, digest=digest, key=path, processes=processes, decision=decision
    )
    return verify_result(report)


async def submit(
    job: JobLike,
    *,
    wait: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> str:
    """Submit a job to a running system and return its id. To submit the same job again changes nothing.

    `status` raises JobUnknown until a producer has accepted the job.

    Args:
        job: the job.
        wait: return when the job has ended. When the wait is cancelled, the job continues.
        settings: settings by name, used before the environment, .env and shardline.toml.
        on_progress: called about twice a second while waiting, in the event loop.

    Raises:
        JobConflict: the id belongs to another job, or to a deleted one. Without `wait` it is not raised for a
            job that no producer has accepted yet.
        JobFailed: with `wait`: the job failed or was cancelled.
        UsageError: the job or a setting is wrong.
        ServiceUnavailable: Kafka cannot be reached.
    """
    found = settings_of(settings)
    spec = spec_of(job, found)
    async with open_client(found) as client:
        await client.submit(spec)
        if wait:
            view = await client.wait(
                spec.job_id,
                progress_reporter(on_progress),
                submitted=spec,
                on_unaccepted=lambda: _log.warning("%s: no producer has accepted the job yet", spec.job_id),
            )
            view.check_completed()
    return spec.job_id


async def status(
    job_id: str,
    *,
    wait: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> JobStatus:
    """Return the status of a job.

    Args:
        job_id: the job.
        wait: return when the job has ended, with any outcome.
        settings: settings by name, used before the environment, .env and shardline.toml.
        on_progress: called about twice a second while waiting, in the event loop.

    Raises:
        JobUnknown: no producer has accepted a job with this id.
        UsageError: a setting is wrong.
        ServiceUnavailable: Kafka cannot be reached.
    """
    async with open_client(settings_of(settings)) as client:
        view = (await client.job_table()).job(job_id)
        if wait and not view.state.settled:
            view = await client.wait(job_id, progress_reporter(on_progress))
    return job_status(view)


async def cancel(
    job_id: str,
    *,
    wait: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Request that a job stops. Its finished segments are kept; `retry` continues behind them.

    Args:
        job_id: the job.
        wait: return when the job has ended, even if it completed before the request was handled.
        settings: settings by name, used before the environment, .env and shardline.toml.
        on_progress: called about twice a second while waiting, in the event loop.

    Raises:
        JobUnknown: no producer has accepted a job with this id.
        UsageError: the job has ended, or a setting is wrong.
        ServiceUnavailable: Kafka cannot be reached.
    """
    async with open_client(settings_of(settings)) as client:
        await client.request_action(job_id, "cancel")
        if wait:
            await client.wait(job_id, progress_reporter(on_progress))


async def retry(
    job_id: str,
    *,
    wait: bool = False,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Request a new attempt of a failed or cancelled job. It continues behind the finished segments.

    Args:
        job_id: the job.
        wait: return when the new attempt has ended.
        settings: settings by name, used before the environment, .env and shardline.toml.
        on_progress: called about twice a second while waiting, in the event loop.

    Raises:
        JobUnknown: no producer has accepted a job with this id.
        JobFailed: with `wait`: the new attempt failed or was cancelled.
        UsageError: the job is neither failed nor cancelled, or a setting is wrong.
        ServiceUnavailable: Kafka cannot be reached.
    """
    async with open_client(settings_of(settings)) as client:
        before = (await client.request_action(job_id, "retry")).state.attempt
        if not wait:
            return
        view = await client.wait(
            job_id,
            progress_reporter(on_progress),
            # Until a producer has handled the request, the view is that of the last attempt.
            until=lambda view: (
                view.state.state is State.DELETED or (view.state.attempt > before and view.state.settled)
            ),
        )
        view.check_completed()
