"""dead-letters list, show, requeue."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shardline.cli.help import HelpGroup, HelpTyper
from shardline.cli.options import Json, complete, quiet_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline_common.job.dead_letters import DeadLetterRecord
    from shardline_common.settings.load import Settings


class _Group(HelpGroup):
    """`dead-letters DATASET` is `dead-letters list DATASET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `list` before the address of a dataset."""
        if args and args[0] not in self.commands and ("/" in args[0] or Path(args[0]).is_dir()):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = HelpTyper(
    cls=_Group,
    help="List, show and requeue dead letters: input that could not be a document or a job. They are read "
    "from Kafka, or from the folder of a dataset.",
    epilog="Examples: shardline dead-letters list --job laws-2026 · "
    "shardline dead-letters list datasets/laws/laws-2026",
    no_args_is_help=True,
)
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key that `dead-letters list` shows.")]
Dataset = Annotated[
    str | None,
    typer.Argument(metavar="DATASET", help="The dataset's folder: a directory or s3://…; by default Kafka."),
]


@app.command(
    "list",
    epilog="Examples: shardline dead-letters list --job laws-2026 · "
    "shardline dead-letters list datasets/laws/laws-2026 · "
    "shardline dead-letters list s3://bucket/laws/laws-2026 --json",
)
def list_dead_letters(
    dataset: Dataset = None,
    job: Annotated[str | None, typer.Option(help="Only dead letters of this job.")] = None,
    json: Json = False,
) -> None:
    """List dead letters with their reasons."""
    from shardline.cli.console import print_json, print_table

    dead_letters = _dead_letters(dataset, quiet_settings(), originals=json)
    # Those of a dataset have an order. Kafka has none over partitions.
    ordered = dead_letters.items() if dataset else sorted(dead_letters.items())
    chosen = [one for _, one in ordered if job is None or one.job_id == job]
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


def _dead_letters(
    dataset: str | None, settings: Settings, *, originals: bool
) -> Mapping[str, DeadLetterRecord]:
    """Those in Kafka, or in a dataset; there `originals` False leaves the original bytes out."""
    if dataset is None:
        return complete(_in_kafka(settings))
    from shardline.cli.console import print_message
    from shardline.services.dataset_dead_letters import dead_letters_at

    found = complete(dead_letters_at(dataset, settings, originals=originals))
    if found.missing > 0:
        print_message(
            f"{found.missing:,} more are counted in manifest.json and are not in the folder: "
            "version 0.1 did not store them"
        )
    return found.by_key


async def _in_kafka(settings: Settings) -> Mapping[str, DeadLetterRecord]:
    from shardline.services.client import open_client

    async with open_client(settings) as client:
        return await client.dead_letters()


@app.command(
    epilog="Examples: shardline dead-letters show dataset.jobs/3/17 · "
    "shardline dead-letters show laws-2026/0/12 datasets/laws/laws-2026"
)
def show(
    key: Key,
    dataset: Dataset = None,
    raw: Annotated[bool, typer.Option("--raw", help="Only the original bytes.")] = False,
    json: Json = False,
) -> None:
    """Show a dead letter with its original."""
    from shardline.cli.console import print_json, print_table

    dead_letter = _find(_dead_letters(dataset, quiet_settings(), originals=True), key)
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
    dead_letter = _find(_dead_letters(None, settings, originals=True), key)
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
