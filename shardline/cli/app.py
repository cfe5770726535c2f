"""The command line. Commands import what they need when they run, so that --help is quick."""

import sys

import typer

from shardline.cli import datasets, doctor, export, jobs, preview
from shardline.cli import dead_letters as letters
from shardline.cli import processes as services
from shardline.cli.options import Interrupted

app = typer.Typer(
    name="shardline",
    help="Turns document stores into training data: exactly once, reproducible byte by byte, proven.",
    epilog="Exit codes: 0 done, 1 job failed or dataset broken, 2 usage, 3 a service is unreachable, "
    "130 interrupted. Settings: flags > environment > .env > shardline.toml; `shardline doctor` shows them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for module in (datasets, doctor, preview, export, jobs, services):
    module.register(app)
app.add_typer(letters.app, name="dead-letters")


def version(value: bool) -> None:
    """Print the version and stop."""
    if value:
        from shardline_common import __version__

        typer.echo(f"shardline {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: bool = typer.Option(
        False, "--version", callback=version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Turns document stores into training data: exactly once, reproducible byte by byte, proven."""


def main() -> None:
    """Run the command line; a user's error is a sentence and an exit code, never a traceback."""
    from shardline_common.errors import ShardlineError

    try:
        app(prog_name="shardline")
    except (KeyboardInterrupt, Interrupted) as error:
        from shardline.cli.console import EXIT_INTERRUPTED

        sys.stderr.write(f"{error or 'interrupted'}\n")
        sys.exit(EXIT_INTERRUPTED)
    except ShardlineError as error:
        # Rich is slow to import, and most commands end well.
        from shardline.cli.console import complain, exit_code

        complain(error)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        # Whoever read our output has enough of it.
        sys.stderr.close()
