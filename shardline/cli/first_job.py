"""init and job: the first job file, and what a job can have."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import Json, complete, quiet_settings

if TYPE_CHECKING:
    from shardline.services.first_job import FirstJob
    from shardline_common.settings.load import Settings

_STORES = ("uds3", "themis")
_JOB = Path("job.json")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog="Examples: shardline init laws.jsonl · shardline init 's3://bucket/in/*.jsonl' --name laws · "
        "shardline init uds3 --query Baurecht"
    )(init)
    app.command(epilog="Examples: shardline job · shardline job --schema > job.schema.json")(job)


def init(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Files, folders or patterns, local or s3://; or the store: uds3 or themis. Without one, "
            "a terminal is asked.",
        ),
    ] = None,
    job_file: Annotated[Path, typer.Option("--job", help="The file to write; never overwritten.")] = _JOB,
    name: Annotated[str | None, typer.Option(help="The name of the dataset.")] = None,
    query: Annotated[str | None, typer.Option(help="The text to search for, in UDS3.")] = None,
    json: Json = False,
) -> None:
    """Write a first job, with comments, for documents that it looks at."""
    from shardline.cli.console import print_json, print_line, print_message
    from shardline.services.first_job import already_there, render, write_new

    if job_file.exists():
        raise already_there(job_file)
    settings = quiet_settings()
    if not source:
        source, name = _ask(name)
    made = _make(source, query, name, settings)
    write_new(job_file, render(made, str(job_file)))
    for line in _summary(made):
        print_message(line)
    print_message(f"next: shardline run {job_file}")
    if json:
        print_json({"file": str(job_file), "job": made.spec.model_dump(mode="json")})
    else:
        print_line(str(job_file))


def _make(source: list[str], query: str | None, name: str | None, settings: Settings) -> FirstJob:
    from shardline.services.first_job import files_job, store_job
    from shardline_common.errors import UsageError

    if source[0] in _STORES and len(source) == 1:
        return store_job(source[0], query, name)
    if query is not None:
        raise UsageError("--query: files cannot be searched", hint="leave it out, or use filters in the job")
    return complete(files_job(source, name, settings), "interrupted; nothing was written")


def _ask(name: str | None) -> tuple[list[str], str | None]:
    from shardline_common.errors import UsageError

    if not _is_terminal():
        raise UsageError("init asks only on a terminal", hint="name the files: shardline init laws.jsonl")
    found = typer.prompt("Where are the documents (a file, a folder, s3://…, uds3 or themis)", err=True)
    asked = "Name of the dataset (empty: that of the files)"
    name = name or typer.prompt(asked, default="", show_default=False, err=True)
    return [str(found).strip()], name or None


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _summary(made: FirstJob) -> list[str]:
    from shardline.services.units import format_counts

    found = made.found
    if found is None:
        return []
    sample = found.sample
    dead = sample.reasons(dead=True)
    looked = (
        f"{len(sample.documents):,} documents were looked at: {len(sample.rows):,} are kept; "
        f"rejected: {format_counts(sample.reasons(dead=False))}; dead letters: {format_counts(dead)}"
    )
    return [looked, *(f"warning: {warning}" for warning in found.warnings)]


def job(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a job.")] = False,
    json: Json = False,
) -> None:
    """Explain every field of a job, or print its JSON Schema."""
    from shardline.cli.console import print_json, print_line
    from shardline_common.job.schema import job_fields, job_schema

    if schema:
        import orjson

        print_line(orjson.dumps(job_schema(), option=orjson.OPT_INDENT_2).decode())
        return
    fields = job_fields()
    if json:
        print_json([dict(zip(("field", "accepts", "meaning"), row, strict=True)) for row in fields])
        return
    for path, accepts, meaning in fields:
        print_line(f"{path}: {accepts}\n    {meaning}")
