"""The command line. A command imports its dependencies when it runs, so that --help is quick."""

import os
import sys

import typer

from shardline.cli import (
    audit,
    catalogue,
    datasets,
    dead_letters,
    doctor,
    explain,
    export,
    first_job,
    jobs,
    preview,
    processes,
    pull,
)
from shardline.cli.help import HelpTyper
from shardline.cli.options import Interrupted

app = HelpTyper(
    name="shardline",
    help="Turns document stores into training data: exactly once, reproducible byte by byte, proven.",
    epilog="Examples: shardline init docs.jsonl · shardline preview job.json · "
    "shardline run job.json --output datasets · shardline verify datasets/laws/laws-2026 · "
    "shardline COMMAND --help\n\n"
    "Exit codes: 0 done, 1 job failed or dataset broken, 2 usage, 3 a service is unreachable, "
    "130 interrupted.\n\n"
    "Settings: flags > environment > .env > shardline.toml; `shardline doctor` shows them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (
    first_job,
    datasets,
    doctor,
    explain,
    catalogue,
    preview,
    export,
    jobs,
    pull,
    processes,
    audit,
):
    module.register(app)
app.add_typer(dead_letters.app, name="dead-letters")


def version(value: bool) -> None:
    """Print the version and stop."""
    if value:
        from shardline import __version__

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
    """Run the command line. Errors of the user are printed as a sentence, and set the exit code."""
    from shardline_common.errors import ShardlineError
    from shardline_common.runtime.collector import collect_seldom

    collect_seldom()
    # pydantic would read the metadata of all installed packages to find plugins, of which none is used here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        app(prog_name="shardline")
    except (KeyboardInterrupt, Interrupted) as error:
        from shardline.cli.console import EXIT_INTERRUPTED

        sys.stderr.write(f"{error or 'interrupted'}\n")
        sys.exit(EXIT_INTERRUPTED)
    except ShardlineError as error:
        # Imported here, because Rich is slow to import and only a command that fails needs it.
        from shardline.cli.console import exit_code, print_error

        print_error(error)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        # The program that reads stdout closed it, as `head` does.
        sys.stderr.close()
