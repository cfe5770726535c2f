"""datasets, diff: which datasets there are, and what differs between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import Json, complete, quiet_settings

if TYPE_CHECKING:
    from shardline.services.dataset_diff import DatasetDiff
    from shardline.services.dataset_list import ListedDataset
    from shardline_common.settings.load import Settings

_WORDS = {
    "added": "only in the second",
    "removed": "only in the first",
    "changed": "in both, with other rows",
    "moved": "in both, in another split",
    "same": "the same in both",
}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(
        epilog="Examples: shardline datasets · shardline datasets laws --in s3://bucket/prefix · "
        "shardline verify $(shardline datasets laws --latest)"
    )(datasets)
    app.command(epilog="Example: shardline diff datasets/laws/laws-2026-10 datasets/laws/laws-2026-11")(diff)


def datasets(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only datasets of this name.")] = None,
    place: Annotated[
        str | None,
        typer.Option(
            "--in",
            metavar="URI",
            help="A directory or s3://…. Default: the bucket of S3_BUCKET, else datasets.",
        ),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Print the address of the newest one only; exit 1 without any.")
    ] = False,
    json: Json = False,
) -> None:
    """List finished datasets, the newest last."""
    from shardline.cli.console import print_json, print_line, print_message, print_table
    from shardline.services.units import format_size

    settings = quiet_settings()
    where = place or _bucket(settings) or "datasets"
    found = complete(_list(where, name, settings), "interrupted")
    if latest:
        found = sorted(found, key=lambda one: (one.completed_at, one.job_id))[-1:]
        if not found:
            print_message(f"there is no finished dataset{f' {name}' if name else ''} in {where}")
            raise typer.Exit(1)
    if json:
        print_json([one.to_json() for one in found])
    elif latest:
        print_line(found[0].uri)
    elif not found:
        print_message(f"there is no finished dataset{f' {name}' if name else ''} in {where}")
    else:
        rows = [
            (
                one.uri,
                one.completed_at[:16].replace("T", " "),
                f"{one.rows:,}",
                format_size(one.bytes),
                one.digest[:12],
            )
            for one in found
        ]
        print_table(("dataset", "completed", "rows", "size", "digest"), rows, whole=("completed", "rows"))


def _bucket(settings: Settings) -> str | None:
    if not settings.s3_bucket:
        return None
    return f"s3://{settings.s3_bucket}/{settings.s3_prefix}".rstrip("/")


async def _list(where: str, name: str | None, settings: Settings) -> list[ListedDataset]:
    from shardline.services.dataset_list import list_datasets
    from shardline.services.wiring.stores import open_store_at

    async with open_store_at(where, settings) as store:
        return await list_datasets(store, name)


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A dataset's folder: a directory or s3://….")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The folder of the other one.")],
    show: Annotated[int, typer.Option(min=0, help="Number of documents to name of each kind.")] = 5,
    json: Json = False,
) -> None:
    """Compare the rows of two finished datasets by document, and what they left out and why.

    All shards of both are read and proven. Needs the extra `assembly`.
    """
    from shardline.cli.console import print_json

    found = complete(_diff(old, new, quiet_settings(), show), "interrupted; nothing was changed")
    if json:
        print_json(found.to_json())
    else:
        _print_diff(found)


async def _diff(old: str, new: str, settings: Settings, show: int) -> DatasetDiff:
    from shardline.cli.bar import progress_bar
    from shardline.services.dataset_diff import diff_datasets
    from shardline_common.runtime.threads import set_thread_pool

    set_thread_pool()
    with progress_bar("reading", lambda done, total: f"read {done:,} of {total:,} rows") as on_rows:
        return await diff_datasets(old, new, settings, show=show, on_rows=on_rows)


def _print_diff(found: DatasetDiff) -> None:
    from shardline.cli.console import print_line, print_table

    if found.same:
        print_line(f"the same rows: {found.rows[0]:,}")
    rows = [
        (kind, f"{count:,}", _WORDS[kind], ", ".join(found.first.get(kind, ())))
        for kind, count in found.documents.items()
    ]
    print_table(("documents", "", "", "such as"), rows, whole=("documents",))
    counts = {"rows": found.rows, **found.left_out}
    print_line("")
    print_table(
        ("", "old", "new", "difference"),
        [(name, f"{old:,}", f"{new:,}", f"{new - old:+,}") for name, (old, new) in counts.items()],
    )
