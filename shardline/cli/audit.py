"""audit: shows the audit log of a gateway and checks its chain."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import Annotated

import typer

from shardline.cli.options import Json, quiet_settings

_EPILOG = (
    "Examples: shardline audit --since 24h · shardline audit --since 2026-11-01 --action purge · "
    "shardline audit --user erika@example.org --json | jq .lines"
)
_MOMENT = "24h, 7d, a day or a time (UTC)."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(audit)


def audit(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    since: Annotated[str | None, typer.Option(metavar="WHEN", help=f"Only later lines: {_MOMENT}")] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help=f"Only earlier lines: {_MOMENT}")] = None,
    user: Annotated[
        str | None, typer.Option(help="Only this user: the token's subject, or the name.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="ID", help="Only this dataset.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as purge or download.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only this outcome, such as 403 or complete.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="The audit log; by default GATEWAY_AUDIT_LOG.")
    ] = None,
    json: Json = False,
) -> None:
    """Show who did what through the gateway, and check that no line of the audit log is missing.

    The exit code is 1 when a line was removed, added or changed.
    """
    from datetime import UTC, datetime

    from shardline.cli.console import EXIT_FAILED, print_json, print_message, print_table
    from shardline.gateway.audit_reader import AuditQuery, parse_moment, read_audit_log
    from shardline_common.errors import UsageError

    path = file or quiet_settings().gateway_audit_log
    if path is None:
        raise UsageError(
            "GATEWAY_AUDIT_LOG is not set: the gateway writes its audit log into the process log",
            hint="set GATEWAY_AUDIT_LOG to a file, here and for the gateway, or use --file",
        )
    now = datetime.now(UTC)
    query = AuditQuery(
        parse_moment(since, now) if since else None,
        parse_moment(until, now) if until else None,
        user,
        {"dataset": dataset, "action": action, "outcome": outcome},
    )
    report = read_audit_log(path, query.matches)
    if json:
        print_json(report.to_json())
    else:
        columns = ("at", "user", "roles", "action", "dataset", "outcome", "request_id")
        print_table(columns, [tuple(_cell(line.get(name)) for name in columns) for line in report.lines])
        for note in report.notes:
            print_message(f"note: {note}")
        for problem in report.problems:
            print_message(f"the log was changed: {problem}")
    if report.problems:
        raise typer.Exit(EXIT_FAILED)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    # A name could write to the terminal.
    return "".join(char if char.isprintable() else "?" for char in text)
