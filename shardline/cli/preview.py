"""preview: estimates the result of a job."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import (
    JobFile,
    Json,
    Sets,
    ValidationFraction,
    WindowName,
    complete,
    quiet_settings,
    read_job,
    read_job_text,
)
from shardline.cli.preview_filters import print_examples, print_filters, write_calibrated, write_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardline.services.preview import JudgedDocument, Preview, PreviewSample

_EPILOG = (
    "Examples: shardline preview job.json · shardline preview job.json --documents 10000 --json | jq .rows · "
    "shardline preview job.json --html filters.html --calibrate calibrated.json --percentile 2 · "
    "echo '{…}' | shardline preview -"
)

_TITLE, _WIDE = 40, 110
_EXAMPLES = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(preview)


def preview(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    job: JobFile,
    window: WindowName = None,
    sets: Sets = None,
    validation_fraction: ValidationFraction = None,
    documents: Annotated[int, typer.Option(min=1, max=100_000, help="Most documents to read.")] = 1000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Longest time to read, after planning.")] = 20.0,
    show: Annotated[int, typer.Option(min=0, help="Number of documents to show.")] = 5,
    examples: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=10,
            help="Number of documents to show for each reason. Default: 3 of a job with filters.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what the filters do as a page: histograms and examples."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the job with the bounds of its filters at a percentile of the sample."
        ),
    ] = None,
    percentile: Annotated[
        float, typer.Option(min=0, max=50, help="How many % of the sample each calibrated bound drops.")
    ] = 2.0,
    json: Json = False,
) -> None:
    """Estimate the result of a job from its first documents. Kafka is not needed, and no dataset is written.

    Shows the columns, the first documents with their scores, rejections and dead letters by reason, what each
    filter measures and drops, and an estimate of rows and bytes.
    """
    from shardline.cli.console import print_json, print_message
    from shardline.services.preview import preview_job

    settings = quiet_settings()
    body = read_job_text(job)
    spec = read_job(job, window, sets, settings, validation_fraction, text=body)
    found = complete(preview_job(spec, settings, documents=documents, seconds=seconds))
    if json:
        print_json(found.to_json(show))
    else:
        _show(found, show, examples)
    if html is not None:
        write_page(html, spec, found.filters)
        print_message(f"the page is {html}")
    if calibrate is not None:
        print_message(write_calibrated(calibrate, body, found.filters, percentile))


def _show(found: Preview, show: int, examples: int | None) -> None:
    from shardline.cli.console import print_line, print_table
    from shardline.services.units import format_counts, format_size

    sample, about = found.sample, "" if found.sample.complete else "about "
    if show and sample.documents:
        _print_documents(sample.documents[:show])
        print_line("")
    # Among the warnings they are sentences.
    shown = {name: value for name, value in found.source.items() if name != "misnamed"}
    kept = len(sample.rows) / max(1, len(sample.documents))
    more = f"more than {len(sample.documents):,}"
    print_table(
        ("", ""),
        [
            ("source", ", ".join(f"{name} {_note(value)}" for name, value in shown.items())),
            ("documents", f"{about}{found.documents:,}" if found.documents is not None else more),
            ("rows", "unknown" if found.rows is None else f"{about}{found.rows:,}"),
            *_splits(found, about),
            ("size", "unknown" if found.bytes is None else f"{about}{format_size(found.bytes)}"),
            ("columns", ", ".join(f"{name}: {kind}" for name, kind in found.columns.items()) or "none"),
            (
                "sample",
                f"{len(sample.documents):,} documents" + (", all of the source" if sample.complete else ""),
            ),
            ("kept", f"{kept:.1%}"),
            ("rejected", format_counts(sample.reasons(dead=False))),
            ("dead letters", format_counts(sample.reasons(dead=True))),
            ("mean score", _score_of(sample)),
            ("score fields", ", ".join(f"{name} {count:,}" for name, count in sample.present.items())),
            *(("warning", warning) for warning in found.warnings),
        ],
    )
    print_filters(found.filters)
    if examples is None:
        examples = _EXAMPLES if len(found.filters.rules) > 1 else 0
    if examples:
        print_examples(found.filters, examples)


def _print_documents(documents: Sequence[JudgedDocument]) -> None:
    """A line for each document. A narrow terminal has no room for titles, which are for orientation only."""
    from shardline.cli.console import print_table

    parts, on_terminal = "= length + metadata + relevance", sys.stdout.isatty()
    narrow = on_terminal and shutil.get_terminal_size().columns < _WIDE
    if on_terminal:
        parts = parts.replace(" +", "\n+")
    names: Sequence[str] = ("document", "title", "characters", "relevance", "quality", parts, "")
    rows: list[Sequence[str]] = [
        (
            one.document_id,
            _cut(one.title or ""),
            f"{one.chars:,}",
            str(one.relevance_score),
            "" if one.quality_score is None else str(one.quality_score),
            " + ".join(f"{part:.4g}" for part in one.score_parts.values()),
            one.reason or "kept",
        )
        for one in documents
    ]
    if narrow:
        names, rows = _without_title(names), [_without_title(row) for row in rows]
    print_table(names, rows, whole=names[-5:])


def _without_title(row: Sequence[str]) -> Sequence[str]:
    return [*row[:1], *row[2:]]


def _cut(title: str) -> str:
    return title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"


def _splits(found: Preview, about: str) -> list[tuple[str, str]]:
    """The rows of each split, if the job has a validation split."""
    from shardline.services.splits import format_splits

    if not found.has_splits:
        return []
    return [("splits", "unknown" if found.splits is None else format_splits(found.splits, about))]


def _score_of(sample: PreviewSample) -> str:
    parts = " + ".join(f"{name} {part}" for name, part in sample.mean_score_parts.items())
    return "none" if sample.mean_quality_score is None else f"{sample.mean_quality_score} = {parts}"


def _note(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {item}" for name, item in value.items())
    return str(value)
