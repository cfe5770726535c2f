"""submit, jobs, status, cancel, retry, delete: talking to a running system through Kafka."""

from __future__ import annotations

import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shardline.cli.options import JobFile, JobId, Json, Sets, WindowName, complete, quiet_settings, read_job

if TYPE_CHECKING:
    from shardline.services.client import JobView
    from shardline_common.job.spec import JobSpec
    from shardline_common.settings.load import Settings

_WATCH_SECONDS = 0.5
_TAKEN_SECONDS = 5.0


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(
        epilog="Examples: shardline submit job.json --wait · shardline submit laws.json --window yesterday"
    )(submit)
    app.command(epilog="Example: shardline jobs --json")(jobs)
    app.command(epilog="Example: shardline status laws-2026 --watch")(status)
    app.command(epilog="Example: shardline cancel laws-2026")(cancel)
    app.command(epilog="Example: shardline retry laws-2026")(retry)
    app.command(epilog="Example: shardline delete laws-2026 --yes")(delete)


def submit(
    job: JobFile,
    window: WindowName = None,
    sets: Sets = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until the job has ended.")] = False,
    json: Json = False,
) -> None:
    """Submit a job and print its id. The same job again is the same job."""
    from shardline.cli.console import put, put_json
    from shardline.services.wiring import traced

    spec = read_job(job, window, sets)
    settings = quiet_settings()
    with traced(settings, "cli"):
        complete(_submit(spec, settings))
    if not wait:
        put_json({"job_id": spec.job_id}) if json else put(spec.job_id)
        return
    view = _seen_through(spec.job_id, settings)
    put_json(view.to_json()) if json else put(spec.job_id)
    _exit_by(view)


async def _submit(spec: JobSpec, settings: Settings) -> None:
    from shardline.services.client import Client
    from shardline.services.wiring import open_broker

    async with open_broker(settings) as broker:
        await Client(broker, settings.jobs_partitions).submit(spec)


def _seen_through(job_id: str, settings: Settings) -> JobView:
    left = f"no longer watching; {job_id} goes on, `shardline cancel {job_id}` ends it"
    return complete(_watch(job_id, settings), left)


async def _watch(job_id: str, settings: Settings) -> JobView:
    """Show a job until it has ended."""
    from shardline.cli.console import say
    from shardline.cli.progress import screen
    from shardline.services.client import Client
    from shardline.services.wiring import open_broker
    from shardline_common.errors import JobUnknown

    async with open_broker(settings) as broker:
        client = Client(broker, settings.jobs_partitions)
        begun, said = time.monotonic(), False
        with screen() as shown:
            async with aclosing(client.follow(_WATCH_SECONDS)) as tables:
                async for table in tables:
                    try:
                        view = table.job(job_id)
                    except JobUnknown:
                        # Submitted a moment ago: a producer has yet to take it.
                        if not said and time.monotonic() - begun > _TAKEN_SECONDS:
                            said = True
                            say(f"{job_id}: not taken yet; is a producer running?")
                        continue
                    shown.show(view)
                    if not view.state.active:
                        return view
    raise AssertionError("the table never ends")


def _exit_by(view: JobView) -> None:
    from shardline_common.job.state import State

    if view.state.state in (State.FAILED, State.CANCELLED):
        raise typer.Exit(1)


def jobs(json: Json = False) -> None:
    """List all jobs."""
    from shardline.cli.console import put_json, put_table

    views = complete(_views(quiet_settings()))
    if json:
        put_json([view.to_json() for view in views])
        return
    rows = [
        (
            view.state.spec.job_id,
            view.state.state.value,
            f"{view.ratio:.0%}",
            f"{view.progress.rows:,}",
            view.state.accepted_at[:19],
            view.state.message or view.state.warning or "",
        )
        for view in views
    ]
    put_table(("job", "state", "done", "rows", "accepted", ""), rows)


async def _views(settings: Settings) -> list[JobView]:
    from shardline.services.client import Client
    from shardline.services.wiring import open_broker

    async with open_broker(settings) as broker:
        return (await Client(broker, settings.jobs_partitions).job_table()).jobs()


def status(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing until the job has ended.")] = False,
    json: Json = False,
) -> None:
    """Show one job: state, percent, documents per second, time left, lag."""
    from shardline.cli.console import put_json
    from shardline.services.client import UNKNOWN_HINT
    from shardline_common.errors import JobUnknown

    settings = quiet_settings()
    found = {view.state.spec.job_id: view for view in complete(_views(settings))}
    if job_id not in found:
        raise JobUnknown(f"no job '{job_id}' is known", hint=UNKNOWN_HINT)
    view = found[job_id]
    if watch and view.state.active:
        view = _seen_through(job_id, settings)
        if not json and sys.stderr.isatty() and sys.stdout.isatty():
            # The last picture stands on this very terminal.
            return
    if json:
        put_json(view.to_json())
    else:
        _show(view)


def _show(view: JobView) -> None:
    from rich.console import Console

    from shardline.cli.progress import job_panel
    from shardline.services.job_rates import JobRates

    Console(highlight=False).print(job_panel(view, JobRates()))


def cancel(job_id: JobId) -> None:
    """Stop a job. What has landed is kept; `retry` goes on from there."""
    complete(_request(job_id, "cancel", quiet_settings()))


def retry(job_id: JobId) -> None:
    """Start a new attempt of a failed or cancelled job; it continues what has landed."""
    complete(_request(job_id, "retry", quiet_settings()))


def delete(
    job_id: JobId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a job's dataset, topics and dead letters. The id stays taken."""
    if not yes:
        typer.confirm(f"Delete the dataset of {job_id} and all that belongs to it?", abort=True, err=True)
    complete(_request(job_id, "delete", quiet_settings()))


async def _request(job_id: str, action: Literal["cancel", "retry", "delete"], settings: Settings) -> None:
    from shardline.cli.console import say
    from shardline.services.client import Client
    from shardline.services.wiring import open_broker
    from shardline_common.errors import UsageError
    from shardline_common.job.spec import Request
    from shardline_common.job.state import RETRIABLE, State

    async with open_broker(settings) as broker:
        client = Client(broker, settings.jobs_partitions)
        state = (await client.job_table()).job(job_id).state.state
        if action == "retry" and state not in RETRIABLE:
            raise UsageError(f"the job is {state}; only a failed or cancelled one can be retried")
        if action == "cancel" and (state in RETRIABLE or state in (State.COMPLETED, State.DELETED)):
            raise UsageError(f"the job is {state}; there is nothing to cancel")
        await client.request(Request(job_id=job_id, action=action))
    say(f"{action} of {job_id} was requested; `shardline status {job_id}` shows what became of it")
