"""pull: a finished dataset on the local disk."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import Json, complete, quiet_settings

if TYPE_CHECKING:
    from shardline.services.pull import Pulled, PullRequest
    from shardline_common.settings.load import Settings

_PART = re.compile(r"(\d{1,9})/(\d{1,9})")
_KEPT = "interrupted; what came is kept, run the same command again to continue"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples: shardline pull s3://bucket/laws/laws-2026 /scratch/laws · shardline pull "
        "s3://bucket/laws/laws-2026 . --split train --single-file · shardline pull "
        "s3://bucket/laws/laws-2026 /scratch/laws --split train --shards 3/8"
    )(pull)


def pull(
    uri: Annotated[str, typer.Argument(metavar="URI", help="The dataset's folder: a directory or s3://….")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder for the files.")],
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Pull one split only, such as train.")
    ] = None,
    single_file: Annotated[
        bool,
        typer.Option("--single-file", help="Write one plain JSONL file for each split: DIR/train.jsonl."),
    ] = False,
    shards: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Pull only the shards that rank I of N ranks reads with shardline.load; the first is 0.",
        ),
    ] = None,
    all_objects: Annotated[
        bool,
        typer.Option("--all-objects", help="Pull what only verify and explain read, too: a whole copy."),
    ] = False,
    json: Json = False,
) -> None:
    """Copy the shards of a finished dataset to a folder. Each file is compared with its sha256.

    After a stop the same command continues. Files that are there with the right bytes are not fetched again.
    """
    from shardline.services.pull import PullRequest

    request = PullRequest(split, single_file, _part_of(shards), all_objects)
    pulled = complete(_pull(uri, folder, quiet_settings(), request), _KEPT)
    _print(pulled, json=json, single_file=single_file)


def _part_of(text: str | None) -> tuple[int, int] | None:
    from shardline_common.errors import UsageError

    if text is None:
        return None
    found = _PART.fullmatch(text)
    if found is None:
        raise UsageError(f"--shards {text} names no part", hint="write it as 0/8, the first of 8 parts")
    return int(found[1]), int(found[2])


async def _pull(uri: str, folder: Path, settings: Settings, request: PullRequest) -> Pulled:
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    from shardline.cli.bar import progress_bar
    from shardline.services.pull import pull_dataset
    from shardline.services.units import format_size
    from shardline_common.runtime.threads import set_thread_pool

    def line(done: int, total: int) -> str:
        return f"pulled {format_size(done)} of {format_size(total)}"

    set_thread_pool()
    columns = ("pulling", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with progress_bar("pulling", line, columns) as on_bytes:
        return await pull_dataset(uri, folder, settings, request, on_bytes)


def _print(pulled: Pulled, *, json: bool, single_file: bool) -> None:
    from shardline.cli.console import print_json, print_line, print_message
    from shardline.services.units import format_size

    if json:
        print_json(
            {
                "folder": str(pulled.folder),
                "digest": pulled.digest,
                "rows": pulled.rows,
                "files": [str(path) for path in pulled.files],
                "fetched_bytes": pulled.fetched_bytes,
                "kept_bytes": pulled.kept_bytes,
            }
        )
        return
    print_message(
        f"{pulled.rows:,} rows in {len(pulled.files)} files, proven: {format_size(pulled.fetched_bytes)} "
        f"fetched, {format_size(pulled.kept_bytes)} were there"
    )
    for path in pulled.files if single_file else [pulled.folder]:
        print_line(str(path))
