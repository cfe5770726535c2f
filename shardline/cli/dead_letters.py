"""dead-letters list, show, requeue."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.help import HelpTyper
from shardline.cli.options import Json, complete, quiet_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline_common.job.dead_letters import DeadLetterRecord
    from shardline_common.settings.load import Settings

app = HelpTyper(
    help="List, show and requeue dead letters: input that could not be a document or a job.",
    no_args_is_help=True,
)
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key that `dead-letters list` shows.")]


@app.command("list", epilog="Example: shardline dead-letters list --job laws-2026")
def list_dead_letters(
    job: Annotated[str | None, typer.Option(help="Only dead letters of this job.")] = None, json: Json = False
) -> None:
    """List dead letters with their reasons."""
    from shardline.cli.console import print_json, print_table

    dead_letters = complete(_dead_letters(quiet_settings()))
    chosen = [one for _, one in sorted(dead_letters.items()) if job is None or one.job_id == job]
    if json:
        print_json([_to_json(one) for one in chosen])
        return
    print_table(("key", "reason", "what is wrong"), [(one.key, one.reason, one.hint) for one in chosen])


def _to_json(dead_letter: DeadLetterRecord) -> dict[str, object]:
    from dataclasses import asdict

    original = dead_letter.original
    return asdict(dead_letter) | {
        "original": None if original is None else original.decode("utf-8", "backslashreplace")
    }


async def _dead_letters(settings: Settings) -> Mapping[str, DeadLetterRecord]:
    from shardline.services.client import open_client

    async with open_client(settings) as client:
        return await client.dead_letters()


@app.command(epilog="Example: shardline dead-letters show dataset.jobs/3/17")
def show(
    key: Key,
    raw: Annotated[bool, typer.Option("--raw", help="Only the original bytes.")] = False,
    json: Json = False,
) -> None:
    """Show a dead letter with its original."""
    from shardline.cli.console import print_json, print_table

    dead_letter = _find(complete(_dead_letters(quiet_settings())), key)
    if raw:
        sys.stdout.buffer.write(dead_letter.original or b"")
    elif json:
        print_json(_to_json(dead_letter))
    else:
        print_table(("field", ""), [(name, str(value)) for name, value in _to_json(dead_letter).items()])


def _find(dead_letters: Mapping[str, DeadLetterRecord], key: str) -> DeadLetterRecord:
    from shardline_common.errors import UsageError

    if key not in dead_letters:
        hint = "use a key that `shardline dead-letters list` shows"
        raise UsageError(f"there is no dead letter '{key}'", hint=hint)
    return dead_letters[key]


@app.command(epilog="Example: shardline dead-letters requeue dataset.jobs/3/17")
def requeue(key: Key) -> None:
    """Send a refused job message again, as it was."""
    from shardline.cli.console import print_message
    from shardline_common.errors import UsageError
    from shardline_common.job.names import JOBS

    settings = quiet_settings()
    dead_letter = _find(complete(_dead_letters(settings)), key)
    if not key.startswith(JOBS + "/") or dead_letter.original is None:
        raise UsageError(
            "only job messages can be sent again; a document comes from its source",
            hint="correct the document in its source and submit a new job",
        )
    complete(_requeue(dead_letter, settings))
    print_message(f"{key} was sent again")


async def _requeue(dead_letter: DeadLetterRecord, settings: Settings) -> None:
    from shardline.services.client import open_client

    async with open_client(settings) as client:
        await client.requeue(dead_letter)
