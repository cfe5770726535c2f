"""The output of commands: data on stdout, messages and progress on stderr."""

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import orjson

from shardline_common.errors import ServiceUnavailable, ShardlineError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 200
# What Rich leaves out of a text: bell, backspace, vertical tab, form feed and carriage return.
_CONTROLS = dict.fromkeys((7, 8, 11, 12, 13))
EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 1, 2, 3, 130


def stderr_console() -> "Console":
    """Return a console on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_message(text: str) -> None:
    """Print a message on stderr."""
    _print_parts((text, ""))


def _print_parts(*parts: tuple[str, str]) -> None:
    """Print texts, each with its style, in one line on stderr."""
    if not _is_drawn():
        # Without Rich, which takes as long to import as a small job takes to run.
        sys.stderr.write("".join(text for text, _ in parts).translate(_CONTROLS) + "\n")
        sys.stderr.flush()
        return
    console = stderr_console()
    for number, (text, style) in enumerate(parts, 1):
        end = "\n" if number == len(parts) else ""
        console.print(text, markup=False, emoji=False, soft_wrap=True, style=style or None, end=end)


def _is_drawn() -> bool:
    """Whether stderr is a terminal, or stands for one by an environment variable that Rich knows."""
    return sys.stderr.isatty() or any(map(os.environ.get, ("FORCE_COLOR", "TTY_COMPATIBLE")))


def exit_code(error: ShardlineError) -> int:
    """Return the exit code for an error."""
    if isinstance(error, UsageError):
        return EXIT_USAGE
    return EXIT_UNREACHABLE if isinstance(error, ServiceUnavailable) else EXIT_FAILED


def print_error(error: ShardlineError) -> None:
    """Print an error and its hint on stderr."""
    _print_parts(("error:", "bold red"), (" " + str(error), ""))
    if error.hint:
        _print_parts(("  try:", "bold"), (" " + error.hint, ""))


def print_line(text: str) -> None:
    """Print a line of data on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json(value: object) -> None:
    """Print a value as JSON on stdout: indented on a terminal, else in one line."""
    option = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    print_line(orjson.dumps(value, option=option | orjson.OPT_NON_STR_KEYS).decode())


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Collection[str] = ()
) -> None:
    """Print a table on stdout. `whole`: the columns whose cells are broken last on a narrow terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*row)
    if sys.stdout.isatty():
        Console(highlight=False, markup=False).print(table)
        return
    console = Console(highlight=False, markup=False, width=_PIPE_WIDTH)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        print_line(line.rstrip())
