"""Options that many commands share. Light: imported at every start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")
    from common.models import JobSpec
    from common.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.json", help="The job message; - is standard input.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job id.")]
Port = Annotated[
    int | None,
    typer.Option("--metrics-port", min=0, max=65535, help="Of /metrics, /healthz, /readyz; 0: any free."),
]


class Interrupted(Exception):
    """The user pressed Ctrl-C."""


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end.

    Raises:
        Interrupted: on Ctrl-C, after everything was cleaned up.
    """
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise Interrupted from None


def settings(**flags: object) -> Settings:
    """The settings of this process; old names are mentioned on stderr, and logging is set up."""
    found = _load(flags)
    _log_by(found, found.log_level, found.log_format)
    return found


def quiet_settings() -> Settings:
    """The settings of a command for people: its logs start at warnings, unless LOG_LEVEL says other."""
    found = _load({})
    level = "WARNING" if found.log_level == "INFO" else found.log_level
    _log_by(found, level, "console" if found.log_format == "auto" else found.log_format)
    return found


def _load(flags: Mapping[str, Any]) -> Settings:
    from common.settings import load_settings
    from shardline.output import say

    loaded = load_settings(flags)
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    return loaded.settings


def _log_by(found: Settings, level: str, style: str) -> None:
    from common.logs import log_to_stderr

    log_to_stderr(level, style, found.secrets())


def read_job(path: Path, *, default_id: bool = True) -> JobSpec:
    """The job of a file.

    Raises:
        UsageError: it cannot be read, or breaks the schema.
    """
    import sys

    from common.errors import UsageError
    from common.models import parse_job

    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return parse_job(text, default_id=default_id)
