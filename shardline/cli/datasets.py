"""run, verify, sample: what needs no running system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import JobFile, Json, Sets, WindowName, complete, quiet_settings, read_job

if TYPE_CHECKING:
    from shardline.services.client import JobView
    from shardline.services.embedded import RunResult
    from shardline_common.dataset.verify import Report
    from shardline_common.job.spec import JobSpec
    from shardline_common.settings.load import Settings


_SHOWN_LETTERS = 10
# Somebody waits for the command to end.
_TELL_SECONDS = 60.0


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: shardline run job.json --output ./datasets")(run)
    app.command(epilog="Example: shardline verify s3://bucket/laws/laws-2026")(verify)
    app.command(epilog="Example: shardline sample docs.jsonl.zst --documents 20000")(sample)


def run(
    job: JobFile,
    window: WindowName = None,
    sets: Sets = None,
    output: Annotated[str, typer.Option(help="A directory, or s3://bucket/prefix.")] = "datasets",
    json: Json = False,
) -> None:
    """Run a whole job in this process: no Kafka needed. Stopped or killed, run it again to go on."""
    from shardline.services.wiring import traced

    spec, settings = read_job(job, window, sets), quiet_settings()
    with traced(settings, "cli"):
        complete(_run(spec, output, settings, json=json))


async def _run(spec: JobSpec, output: str, settings: Settings, *, json: bool) -> None:
    from shardline.cli.console import put_json
    from shardline.cli.progress import screen
    from shardline.services.embedded import EmbeddedRun, locked_output
    from shardline.services.webhook_setup import open_receiver
    from shardline.services.wiring import CLOCK, open_place, open_reader, producer_policy, source_factory
    from shardline_common.job.names import Layout
    from shardline_common.storage.probe import probe_create_only
    from shardline_common.telemetry.metrics import Metrics

    metrics = Metrics()
    async with (
        open_place(output, settings) as store,
        open_reader(settings) as remote,
        open_receiver(settings, metrics, most=_TELL_SECONDS) as receiver,
    ):
        with locked_output(output), screen() as shown:
            await probe_create_only(store)
            embedded = EmbeddedRun(
                store=store,
                clock=CLOCK,
                metrics=metrics,
                open_source=source_factory(settings, Path(), confined=False, remote=remote),
                policy=producer_policy(settings),
                spool_bytes=settings.spool_bytes,
                uploads=settings.uploads,
                receiver=receiver,
            )
            ending = await embedded.run(spec, shown.show)
        view = ending.view
        place = f"{store.uri}/{Layout.of(spec).root}".rstrip("/")
    if json:
        put_json(view.to_json() | {"dataset": place})
    else:
        _tell(ending, place)
    _exit_by(view)


def _tell(ending: RunResult, place: str) -> None:
    from shardline.cli.console import put, say
    from shardline.services.units import format_counts, format_size
    from shardline_common.job.state import State

    progress, state = ending.view.progress, ending.view.state
    for letter in ending.letters[:_SHOWN_LETTERS]:
        say(f"dead letter: {letter.reason}: {letter.hint}")
    if state.state is not State.COMPLETED:
        return
    say(
        f"{progress.rows:,} rows ({format_size(progress.bytes)}) of {state.source_count:,} documents; "
        f"rejected: {format_counts(progress.rejected)}; dead letters: {format_counts(progress.dead)}"
    )
    for key, sentence in (
        ("left_out", "searches left out, not configured"),
        ("degraded", "down, neither searched nor asked what is deleted"),
    ):
        if searches := state.notes.get(key):
            say(f"warning: {sentence}: {', '.join(searches)}")
    if state.warning:
        say(f"warning: {state.warning}: no document passed the filters")
    put(place)


def _exit_by(view: JobView) -> None:
    from shardline_common.errors import FailureCode, JobFailed
    from shardline_common.job.state import State

    if view.state.state is not State.COMPLETED:
        code = FailureCode(view.state.code) if view.state.code else FailureCode.INTERNAL
        raise JobFailed(code, view.state.message or view.state.state.value)


def verify(
    uri: Annotated[str, typer.Argument(metavar="URI", help="The dataset's folder: a directory or s3://….")],
    json: Json = False,
) -> None:
    """Read a finished dataset again, every byte, and let it prove itself. Exit 1 names the first break."""
    report = complete(_verify(uri, quiet_settings()))
    _report(report, json=json)
    if not report.ok:
        raise typer.Exit(1)


async def _verify(uri: str, settings: Settings) -> Report:
    from rich.progress import Progress

    from shardline.cli.console import messages
    from shardline.services.wiring import open_place
    from shardline_common.dataset.verify import Verifier

    async with open_place(uri, settings) as store:
        with Progress(console=messages(), transient=True, disable=not messages().is_terminal) as bar:
            task = bar.add_task("verifying", total=None)

            def on_shard(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            return await Verifier(store, "", on_shard).run()


def _report(report: Report, *, json: bool) -> None:
    from shardline.cli.console import put, put_json, say
    from shardline.services.units import format_counts

    if json:
        put_json(report.to_json())
        return
    for problem in report.problems:
        say(f"broken: {problem}")
    if report.ok:
        put(
            f"proven: {report.rows:,} rows in {report.shards} shards, "
            f"rejected {format_counts(report.rejected)}, "
            f"dead letters {format_counts(report.dead_letters)}, digest {report.digest}"
        )


def sample(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; .zst and .gz are compressed.")],
    documents: Annotated[int, typer.Option(min=0, help="How many.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Another seed is another corpus.")] = 1,
    broken: Annotated[
        bool, typer.Option("--broken", help="Add a line of each kind that is no document.")
    ] = False,
) -> None:
    """Write a deterministic synthetic corpus of German and English documents."""
    from shardline.services.sample import write_sample

    write_sample(path, documents, seed, broken=broken)
    typer.echo(str(path))
