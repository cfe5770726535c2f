"""The bar of a command that reads or copies a known amount: drawn on a terminal, else lines if it asks."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import ProgressColumn

_LINE_SECONDS = 10.0


@contextmanager
def progress_bar(
    words: str, line: Callable[[int, int], str] | None = None, columns: tuple[str | ProgressColumn, ...] = ()
) -> Iterator[Callable[[int, int], None]]:
    """Draw a bar on stderr while the context lasts. Yields what takes how much is done, and of how much.

    Args:
        words: what is done, in front of the bar.
        line: makes the line that is printed every 10 seconds where no bar is drawn; None: none is.
        columns: the columns of the bar; none are Rich's own.
    """
    from rich.progress import Progress

    from shardline.cli.console import print_message, stderr_console

    console, due = stderr_console(), time.monotonic() + _LINE_SECONDS
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=None)

        def show(done: int, total: int) -> None:
            nonlocal due
            bar.update(task, completed=done, total=total)
            if line is not None and bar.disable and time.monotonic() >= due:
                due = time.monotonic() + _LINE_SECONDS
                print_message(line(done, total))

        yield show
