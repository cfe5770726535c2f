"""The text of --help: commands by task, examples that can be copied, and as wide as the terminal.

Typer cuts the sentence of a command at the end of its line, breaks an example over lines, and never writes
fewer than 50 or more than 80 columns. Its own other format needs Rich, whose import takes longer than --help.
"""

import inspect
import re
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

TASKS = {
    "Run a dataset": ("init", "job", "preview", "run", "export", "sample"),
    "Look at a dataset": ("datasets", "verify", "explain", "diff", "pull", "dead-letters"),
    "Jobs of a running system": ("submit", "jobs", "status", "cancel", "retry", "delete"),
    "Services": ("producer", "worker", "gateway"),
    "Operate and check": ("doctor", "audit"),
}
_OTHER = "Other commands"
_MIN_WIDTH, _MAX_WIDTH = 30, 120
_NO_LIMIT = 10_000
# ` <list[str]>` stands beside the dots that say the same, and a range is in the sentence behind.
_WORDS_OF_PYTHON = re.compile(r" <list\[str\]>| range(?=>)")
# Typer exports no other name of it.
_Formatter: Any = typer.Context.formatter_class


class HelpFormatter(_Formatter):  # type: ignore[misc]
    """Leaves two thirds of a narrow terminal to the sentences."""

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names and their sentences in two columns."""
        named = [(_WORDS_OF_PYTHON.sub("", name), sentence) for name, sentence in rows]
        super().write_dl(named, min(col_max, self.width // 3), col_spacing)


class HelpContext(typer.Context):
    """Makes a formatter as wide as the terminal."""

    def make_formatter(self) -> HelpFormatter:
        """Return the formatter of a help text."""
        columns = self.terminal_width or shutil.get_terminal_size().columns - 2
        return HelpFormatter(width=min(max(columns, _MIN_WIDTH), self.max_content_width or _MAX_WIDTH))


def _write_epilog(epilog: str | None, formatter: Any) -> None:
    for paragraph in inspect.cleandoc(epilog or "").split("\n\n"):
        kind, _, examples = paragraph.partition(": ")
        if kind in ("Example", "Examples"):
            with formatter.section("Examples"):
                for example in examples.split(" · "):
                    # In one line, however long: it can be copied.
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        elif paragraph:
            formatter.write_paragraph()
            formatter.write_text(paragraph)


class HelpCommand(TyperCommand):
    """A command with such a help text."""

    context_class = HelpContext

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the signature of the base
        """Write the examples."""
        _write_epilog(self.epilog, formatter)


class HelpGroup(TyperGroup):
    """A group of commands with such a help text."""

    context_class = HelpContext

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the signature of the base
        """Write the examples and the notes."""
        _write_epilog(self.epilog, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands by task, each with its whole first sentence. Only the root has tasks."""
        shown = {name: command for name, command in self.commands.items() if not command.hidden}
        tasks = TASKS if ctx.parent is None else {"Commands": tuple(shown)}
        known = {name for names in tasks.values() for name in names}
        rest = tuple(name for name in shown if name not in known)
        width = max(map(len, shown))
        for task, names in (tasks | {_OTHER: rest}).items():
            commands = [(name, shown[name]) for name in names if name in shown]
            rows = [(f"{name:{width}}", command.get_short_help_str(_NO_LIMIT)) for name, command in commands]
            if rows:
                with formatter.section(task):
                    formatter.write_dl(rows)


class HelpTyper(typer.Typer):
    """A Typer application whose commands have such a help text."""

    def __init__(self, cls: type[HelpGroup] = HelpGroup, **options: Any) -> None:
        super().__init__(cls=cls, rich_markup_mode=None, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Register a command."""
        return super().command(name, cls=HelpCommand, **options)
