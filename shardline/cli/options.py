"""Options, settings and job files of the commands. It imports little, because every command imports it."""

from __future__ import annotations

import asyncio
import codecs
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")
    from shardline.services.date_range import DateRange
    from shardline_common.job.spec import JobSpec
    from shardline_common.settings.load import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.json", help="The job message; - is standard input.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job id.")]
WindowName = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="WHEN",
        help="Fill ${window}, ${from}, ${to}, ${end}, ${next}. "
        "yesterday, today, last-week, last-month, a day, 2026-w48, 2026-11, DAY..DAY; in UTC.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Fill ${NAME} in the job's texts; may be repeated."),
]
ValidationFraction = Annotated[
    float | None,
    typer.Option(
        "--validation-fraction",
        metavar="SHARE",
        help="Take this output.validation_fraction instead of the job's. Without a job_id, another share is "
        "another job.",
    ),
]
Port = Annotated[
    int | None,
    typer.Option("--metrics-port", min=0, max=65535, help="Port of /metrics and /healthz; 0: any free."),
]


class Interrupted(Exception):
    """The user pressed Ctrl-C. The message says how to continue."""


RESUMABLE = "interrupted; finished segments are kept, run the same command again to continue"


def complete(work: Coroutine[Any, Any, T], interrupted: str | Callable[[], str] = RESUMABLE) -> T:
    """Run a command's coroutine and return its result.

    `interrupted` is the message after Ctrl-C, or returns it.

    Raises:
        Interrupted: Ctrl-C was pressed, and the coroutine has cleaned up.
    """
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        pass
    raise Interrupted(interrupted if isinstance(interrupted, str) else interrupted())


def settings(**flags: object) -> Settings:
    """Load the settings of a long-running process, and configure logging with them."""
    found = _load(flags)
    _configure_logging(found, found.log_level, found.log_format)
    return found


def quiet_settings() -> Settings:
    """Load the settings of a command, and configure logging: from WARNING on, unless LOG_LEVEL is set."""
    found = _load({})
    level = "WARNING" if found.log_level == "INFO" else found.log_level
    style = "console" if found.log_format == "auto" else found.log_format
    _configure_logging(found, level, style, shows_outcomes=True)
    return found


def _load(flags: Mapping[str, Any]) -> Settings:
    from shardline.cli.console import print_message
    from shardline_common.settings.load import load_settings

    loaded = load_settings(flags)
    for warning in (*loaded.warnings, *loaded.short_secrets):
        print_message(f"warning: {warning}")
    return loaded.settings


def _configure_logging(found: Settings, level: str, style: str, *, shows_outcomes: bool = False) -> None:
    from shardline_common.telemetry.logs import log_to_stderr

    log_to_stderr(level, style, found.secrets(), shows_outcomes=shows_outcomes)


def read_job(
    path: Path,
    window: str | None = None,
    sets: Sequence[str] | None = None,
    settings: Settings | None = None,
    validation_fraction: float | None = None,
    *,
    text: bytes | None = None,
) -> JobSpec:
    """Read a job file and fill its placeholders. A job without an id gets the default one.

    Args:
        path: the file; - is standard input.
        window: the days that fill the placeholders of dates.
        sets: values of other placeholders.
        settings: they give values to fields that the job leaves out (`job_defaults`).
        validation_fraction: replaces the job's, unless it is None.
        text: what `read_job_text` has read; None: the file is read.

    Raises:
        UsageError: the file cannot be read, a placeholder has no value, or the job does not fit the schema.
    """
    from shardline.services.job_defaults import job_defaults
    from shardline.services.job_template import fill_job, uses_dates, with_validation_fraction
    from shardline_common.errors import JobInvalid
    from shardline_common.job.spec import parse_job

    if text is None:
        text = read_job_text(path)
    days = _date_range(window, warn=uses_dates(text)) if window else None
    defaults = job_defaults(settings) if settings else None
    body = fill_job(text, days, sets or ())
    if validation_fraction is not None:
        body = with_validation_fraction(body, validation_fraction)
    # A placeholder is filled with a text, also where the job needs a number.
    try:
        return parse_job(body, default_id=True, defaults=defaults, strict=not (days or sets))
    except JobInvalid as error:
        error.hint = error.hint or _other_file(path, text)
        raise


def read_job_text(path: Path) -> bytes:
    """Read a job file without its comments; - is standard input. Raises UsageError when it cannot be read."""
    import sys

    from shardline.services.job_template import without_comments
    from shardline_common.errors import UsageError

    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=_other_file(path)) from None
    # Some editors write a byte order mark, which is no JSON.
    return without_comments(text.removeprefix(codecs.BOM_UTF8))


def _other_file(path: Path, text: bytes | None = None) -> str | None:
    """The hint when a file is no job: the command that makes a job for it, or in its place."""
    import shlex

    name = shlex.quote(str(path))
    if text is None and not path.exists():
        return f"`shardline init FILES --job {name}` writes a job for files"
    is_typo = text is not None and text.lstrip().startswith(b"{") and path.suffix in ("", ".json")
    if str(path) == "-" or is_typo or (text is None and not path.is_dir()):
        return None
    return f"a job names the documents; where {path} holds them: `shardline init {name}` writes a job"


def _date_range(text: str, *, warn: bool) -> DateRange:
    from shardline.cli.console import print_message
    from shardline.services.date_range import parse_date_range
    from shardline_common.runtime.clock import SystemClock

    today = SystemClock().now().date()
    found = parse_date_range(text, today)
    if warn and found.last >= today:
        print_message(f"warning: {found.last} is not over in UTC: later documents will not be in the dataset")
    return found
