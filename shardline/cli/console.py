"""The output of commands: data on stdout, messages and progress on stderr."""

import sys
from collections.abc import Collection, Iterable, Sequence

import orjson
from rich.console import Console
from rich.table import Table

from shardline_common.errors import ServiceUnavailable, ShardlineError, UsageError

_PIPE_WIDTH = 200
EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 1, 2, 3, 130


def stderr_console() -> Console:
    """Return a console on stderr."""
    return Console(stderr=True, highlight=False)


def print_message(text: str) -> None:
    """Print a message on stderr."""
    stderr_console().print(text, markup=False, soft_wrap=True)


def exit_code(error: ShardlineError) -> int:
    """Return the exit code for an error."""
    if isinstance(error, UsageError):
        return EXIT_USAGE
    return EXIT_UNREACHABLE if isinstance(error, ServiceUnavailable) else EXIT_FAILED


def print_error(error: ShardlineError) -> None:
    """Print an error and its hint on stderr."""
    console = stderr_console()
    console.print("[bold red]error:[/] ", end="")
    console.print(str(error), markup=False, soft_wrap=True)
    if error.hint:
        console.print("[bold]  try:[/] ", end="")
        console.print(error.hint, markup=False, soft_wrap=True)


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
