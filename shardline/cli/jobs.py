"""submit, jobs, status, cancel, retry, delete: the commands for a running system, through Kafka."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import (
    JobFile,
    JobId,
    Json,
    Sets,
    ValidationFraction,
    WindowName,
    complete,
    quiet_settings,
    read_job,
)

if TYPE_CHECKING:
    from shardline.services.client import Action
    from shardline.services.job_view import JobView
    from shardline_common.job.spec import JobSpec
    from shardline_common.settings.load import Settings


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(
        epilog="Examples: shardline submit job.json --wait · shardline submit laws.json --window yesterday"
    )(submit)
    app.command(epilog="Example: shardline jobs --json")(jobs)
    app.command(epilog="Example: shardline status laws-2026 --watch")(status)
    app.command(epilog="Example: shardline cancel laws-2026")(cancel)
    app.command(epilog="Example: shardline retry laws-2026")(retry)
    app.command(
        epilog="Examples: shardline delete laws-2026 --yes · shardline delete laws-2026 --versions --wait"
    )(delete)


def submit(
    job: JobFile,
    window: WindowName = None,
    sets: Sets = None,
    validation_fraction: ValidationFraction = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the job has ended.")] = False,
    json: Json = False,
) -> None:
    """Submit a job and print its id. To submit the same job again changes nothing."""
    from shardline.cli.console import print_json, print_line
    from shardline.services.wiring.tracing import traced

    settings = quiet_settings()
    spec = read_job(job, window, sets, settings, validation_fraction)
    with traced(settings, "cli"):
        complete(_submit(spec, settings))
    if not wait:
        print_json({"job_id": spec.job_id}) if json else print_line(spec.job_id)
        return
    view = _watch_to_end(spec.job_id, settings, spec)
    print_json(view.to_json()) if json else print_line(spec.job_id)
    view.check_completed()


async def _submit(spec: JobSpec, settings: Settings) -> None:
    from shardline.services.client import open_client

    async with open_client(settings) as client:
        await client.submit(spec)


def _watch_to_end(job_id: str, settings: Settings, submitted: JobSpec | None = None) -> JobView:
    """Show a job until it has ended, and return its last view. `submitted`: raise if it is refused."""
    from shardline.cli.console import print_message
    from shardline.cli.progress import open_screen
    from shardline.services.client import open_client

    def on_unaccepted() -> None:
        print_message(
            f"{job_id}: no producer has accepted the job yet; is one running? "
            "`shardline doctor` finds what may keep it from work"
        )

    async def watch() -> JobView:
        async with open_client(settings) as client:
            with open_screen(shows_failure=submitted is None) as screen:
                return await client.wait(
                    job_id, screen.show, on_unaccepted=on_unaccepted, submitted=submitted
                )

    return complete(watch(), f"no longer watching; {job_id} continues, `shardline cancel {job_id}` ends it")


def jobs(json: Json = False) -> None:
    """List all jobs."""
    from shardline.cli.console import print_json, print_table

    views = complete(_views(quiet_settings()))
    if json:
        print_json([view.to_json() for view in views])
        return
    rows = [
        (
            view.state.spec.job_id,
            view.state.state.value,
            f"{view.ratio:.0%}",
            f"{view.progress.rows:,}",
            view.state.accepted_at[:19],
            view.state.message or view.state.warning or view.waiting or "",
        )
        for view in views
    ]
    print_table(("job", "state", "done", "rows", "accepted", ""), rows)


async def _views(settings: Settings) -> list[JobView]:
    from shardline.services.client import open_client

    async with open_client(settings) as client:
        return (await client.job_table()).jobs()


def status(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Show progress until the job has ended.")] = False,
    json: Json = False,
) -> None:
    """Show one job: state, percent, documents per second, time left, lag."""
    from rich.console import Console

    from shardline.cli.console import print_json
    from shardline.cli.panel import job_panel
    from shardline.services.job_rates import JobRates

    settings = quiet_settings()
    view = complete(_view(job_id, settings))
    if watch and not view.state.settled:
        view = _watch_to_end(job_id, settings)
        if not json and sys.stderr.isatty() and sys.stdout.isatty():
            # The last panel is still shown on this terminal.
            return
    if json:
        print_json(view.to_json())
    else:
        Console(highlight=False).print(job_panel(view, JobRates()))


async def _view(job_id: str, settings: Settings) -> JobView:
    from shardline.services.client import open_client

    async with open_client(settings) as client:
        return (await client.job_table()).job(job_id)


def cancel(job_id: JobId) -> None:
    """Stop a job. Its committed segments are kept; `retry` continues behind them."""
    _request(job_id, "cancel")


def retry(job_id: JobId) -> None:
    """Start a new attempt of a failed or cancelled job, behind its committed segments."""
    _request(job_id, "retry")


def delete(
    job_id: JobId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    versions: Annotated[
        bool,
        typer.Option(
            "--versions",
            help="Also remove the versions that a bucket with versioning keeps, if it allows that.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it is deleted, and say what the store keeps.")
    ] = False,
) -> None:
    """Delete a job's dataset, topics and dead letters. The id cannot be used again."""
    from shardline.cli.console import print_message

    if not yes:
        kept = ", and the versions that the store keeps" if versions else ""
        typer.confirm(f"Delete the dataset, topics and dead letters of {job_id}{kept}?", abort=True, err=True)
    if not wait:
        _request(job_id, "delete", versions=versions)
        return
    interrupted = f"no longer waiting; the delete of {job_id} was requested"
    view = complete(_delete_and_wait(job_id, quiet_settings(), versions=versions), interrupted)
    print_message(f"{job_id} is deleted" + (f"; {view.state.message}" if view.state.warning else ""))


async def _delete_and_wait(job_id: str, settings: Settings, *, versions: bool) -> JobView:
    from shardline.services.client import open_client
    from shardline_common.job.state import State

    async with open_client(settings) as client:
        before = await client.request_action(job_id, "delete", versions=versions)

        def is_deleted(view: JobView) -> bool:
            state = view.state
            return state.state is State.DELETED and state.request_offset > before.state.request_offset

        return await client.wait(job_id, lambda _: None, until=is_deleted)


def _request(job_id: str, action: Action, *, versions: bool = False) -> None:
    from shardline.cli.console import print_message

    complete(_send(job_id, action, quiet_settings(), versions=versions))
    print_message(f"{action} of {job_id} was requested; `shardline status {job_id}` shows the result")


async def _send(job_id: str, action: Action, settings: Settings, *, versions: bool) -> None:
    from shardline.services.client import open_client

    async with open_client(settings) as client:
        await client.request_action(job_id, action, versions=versions)
