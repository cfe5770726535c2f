"""run, verify, sample: the commands that need no running system."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import (
    RESUMABLE,
    JobFile,
    Json,
    Sets,
    ValidationFraction,
    WindowName,
    complete,
    quiet_settings,
    read_job,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shardline.services.local_run import LocalRun
    from shardline_common.dataset.verify import Report
    from shardline_common.job.spec import JobSpec
    from shardline_common.settings.load import Settings

_SHOWN_DEAD_LETTERS = 10
_KEPT_SECONDS = 10.0
_VERIFY_AGAIN = "interrupted; nothing was changed, and nothing is proven"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: shardline run job.json --output ./datasets")(run)
    app.command(
        epilog="Examples: shardline verify s3://bucket/laws/laws-2026 · shardline verify datasets/laws/laws "
        "--key public.pem"
    )(verify)
    app.command(epilog="Example: shardline sample docs.jsonl.zst --documents 20000")(sample)


def run(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    job: JobFile,
    window: WindowName = None,
    sets: Sets = None,
    validation_fraction: ValidationFraction = None,
    output: Annotated[str, typer.Option(help="A directory, or s3://bucket/prefix.")] = "datasets",
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete the dataset of another job under the same id first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --replace deletes.")] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="Processes in which large files are read. Default: the cores, up to 4."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run a whole job in this process, without Kafka. To continue after a stop or a kill, run it again."""
    from shardline.services.local_run import with_replace_hint
    from shardline.services.wiring.tracing import traced
    from shardline_common.errors import JobConflict

    settings = quiet_settings()
    if processes is not None:
        settings = settings.model_copy(update={"processes": processes})
    spec = read_job(job, window, sets, settings, validation_fraction)
    if replace and not yes:
        _confirm_replace(spec, output, settings)
    with traced(settings, "cli"):
        try:
            work = _run(spec, output, settings, replace=replace, json=json)
            complete(work, partial(_interrupted, spec, output, settings))
        except JobConflict as conflict:
            raise with_replace_hint(conflict, spec, "--replace") from None


def _confirm_replace(spec: JobSpec, output: str, settings: Settings) -> None:
    from shardline.services.local_run import find_old_dataset
    from shardline_common.errors import UsageError

    old = complete(find_old_dataset(spec, output, settings))
    if old is None:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"--replace would delete {old.uri}, and asks only on a terminal", hint="add --yes")
    fields = ", ".join(old.fields)
    typer.confirm(f"Delete {old.uri}, whose job differs in {fields}?", abort=True, err=True)


def _interrupted(spec: JobSpec, output: str, settings: Settings) -> str:
    """What an interrupted run has kept, as a sentence."""
    from shardline.services.local_run import kept_documents
    from shardline.services.units import format_size
    from shardline_common.errors import ShardlineError

    async def read() -> int | None:
        async with asyncio.timeout(_KEPT_SECONDS):
            return await kept_documents(spec, output, settings)

    try:
        kept = asyncio.run(read())
    except (ShardlineError, TimeoutError, KeyboardInterrupt):
        # What is kept cannot be read now.
        return RESUMABLE
    if kept is None:
        return "interrupted; the dataset is finished, run the same command again to see it"
    if kept:
        return f"interrupted; {kept:,} documents are kept, run the same command again to continue"
    size = format_size(spec.output.shard_bytes)
    return (
        f"interrupted; no document is kept yet, because no segment has {size} of rows (a smaller "
        "output.shard_bytes keeps documents sooner); run the same command again to begin again"
    )


async def _run(spec: JobSpec, output: str, settings: Settings, *, replace: bool, json: bool) -> None:
    from shardline.cli.console import print_json
    from shardline.cli.progress import open_screen
    from shardline.services.local_run import run_job
    from shardline_common.runtime.allocator import keep_freed_memory
    from shardline_common.runtime.collector import collect_seldom
    from shardline_common.runtime.failpoints import arm
    from shardline_common.runtime.threads import set_thread_pool

    arm(os.environ)
    set_thread_pool()
    collect_seldom()
    keep_freed_memory()
    with open_screen(shows_failure=False) as screen:
        result = await run_job(spec, output, settings, screen.show, replace=replace)
    if json:
        splits = {} if result.splits is None else {"splits": result.splits}
        print_json(result.view.to_json() | {"dataset": result.dataset} | splits)
    else:
        _print_result(result)
    result.view.check_completed()


def _print_result(result: LocalRun) -> None:
    from shardline.cli.console import print_line, print_message
    from shardline.services.splits import format_splits
    from shardline.services.units import format_counts, format_size
    from shardline_common.job.state import State

    progress, state = result.view.progress, result.view.state
    for dead_letter in result.dead_letters[:_SHOWN_DEAD_LETTERS]:
        print_message(f"dead letter: {dead_letter.reason}: {dead_letter.hint}")
    if state.state is not State.COMPLETED:
        return
    if sum(progress.dead.values()) > _SHOWN_DEAD_LETTERS:
        print_message(f"all dead letters: shardline dead-letters list {result.dataset}")
    print_message(
        f"{progress.rows:,} rows ({format_size(progress.bytes)}) of {state.source_count:,} documents; "
        f"rejected: {format_counts(progress.rejected)}; dead letters: {format_counts(progress.dead)}"
        + (f"; personal data: {format_counts(progress.pii)}" if progress.pii else "")
    )
    if result.splits is not None:
        print_message(f"splits: {format_splits(result.splits)}")
    for warning in result.warnings:
        print_message(f"warning: {warning}")
    print_line(result.dataset)


def verify(
    uri: Annotated[str, typer.Argument(metavar="URI", help="The dataset's folder: a directory or s3://….")],
    digest: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="The digest that the dataset must have.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The public Ed25519 key (PEM) that must have signed the dataset."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            metavar="N",
            help="Check a large dataset with up to N processes. Default: SHARDLINE_PROCESSES, else one for "
            "each core.",
        ),
    ] = None,
    decision: Annotated[
        bool,
        typer.Option("--decision", help="Decide an assembled dataset again from its sidecars, and compare."),
    ] = False,
    json: Json = False,
) -> None:
    """Read every byte of a finished dataset and check its proof. Prints what is broken and exits with 1.

    Who can write to the store can make another dataset with a proof of its own. A digest that was kept
    elsewhere, or the key of a signature, excludes it.
    """
    from shardline.services.local_run import verify_dataset

    check = partial(
        verify_dataset,
        uri,
        quiet_settings(),
        digest=digest,
        key=key,
        processes=processes,
        decision=decision,
    )
    report = complete(_verify(check), _VERIFY_AGAIN)
    _print_report(report, json=json)
    if not report.ok:
        raise typer.Exit(1)


async def _verify(check: Callable[..., Awaitable[Report]]) -> Report:
    from shardline.cli.bar import progress_bar

    with progress_bar("verifying") as on_shard:
        return await check(on_shard=on_shard)


def _print_report(report: Report, *, json: bool) -> None:
    from shardline.cli.console import print_json, print_line, print_message
    from shardline.services.units import format_counts

    if json:
        print_json(report.to_json())
        return
    for problem in report.problems:
        print_message(f"broken: {problem}")
    for note in report.notes:
        print_message(f"note: {note}")
    if report.ok:
        rejected, dead = format_counts(report.rejected), format_counts(report.dead_letters)
        print_line(
            f"proven: {report.rows:,} rows in {report.shards} shards, rejected {rejected}, "
            f"dead letters {dead}, digest {report.digest}"
        )
        if report.decision:
            print_message("the decision was recomputed, and is the same to the byte")


def sample(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write, compressed if it ends in .zst or .gz.")
    ],
    documents: Annotated[int, typer.Option(min=0, help="Number of documents.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Each seed gives another corpus.")] = 1,
    broken: Annotated[
        bool, typer.Option("--broken", help="Add a line of each kind that cannot be a document.")
    ] = False,
) -> None:
    """Write a deterministic synthetic corpus of German and English documents."""
    from shardline.services.sample import write_sample

    write_sample(path, documents, seed, broken=broken)
    typer.echo(str(path))
