"""export: Clara's script. A search straight into a local file, without Kafka or a store of datasets."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import Json, complete, quiet_settings

if TYPE_CHECKING:
    from shardline.clara import DatasetSearchQuery
    from shardline.services.row_stream import StreamCounts
    from shardline_common.settings.load import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog='Example: shardline export --query "Baurecht Dachanlage" --output data/training.jsonl'
    )(export)


def export(
    query: Annotated[str, typer.Option(help="What to search for.")],
    output: Annotated[Path, typer.Option(help="The JSONL file to write; it is there whole or not at all.")],
    top_k: Annotated[int, typer.Option(min=1, help="Documents read, before the filter.")] = 1000,
    domain: Annotated[str | None, typer.Option(help="Only this domain.")] = None,
    min_quality: Annotated[float, typer.Option(min=0.0, max=1.0, help="Lowest quality score kept.")] = 0.5,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Documents of one piece; STREAMING_BATCH_SIZE by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Search UDS3 and write the training lines to a file, as Clara's script did. Exit 1 on any failure."""
    from shardline.clara import DatasetSearchQuery
    from shardline.cli.console import EXIT_FAILED, complain, put_json, say
    from shardline.services.row_stream import StreamCounts
    from shardline_common.errors import ServiceUnavailable

    settings, tally = quiet_settings(), StreamCounts()
    asked = DatasetSearchQuery(
        query_text=query,
        top_k=top_k,
        filters={"domain": domain} if domain else None,
        min_quality_score=min_quality,
        weights={"vector": 0.6, "graph": 0.4},
    )
    try:
        complete(_export(asked, output, batch_size or settings.streaming_batch_size, settings, tally))
    except ServiceUnavailable as error:
        complain(error)
        raise typer.Exit(EXIT_FAILED) from None
    if json:
        put_json({"output": str(output), "rows": tally.rows, "read": tally.read, "rejected": tally.rejected})
    say(f"{tally.rows:,} of {tally.read:,} documents were written to {output}")


async def _export(
    query: DatasetSearchQuery, output: Path, batch_size: int, settings: Settings, tally: StreamCounts
) -> None:
    from shardline.clara import DatasetSearchAPI
    from shardline_common.errors import ServiceUnavailable

    if not settings.streaming_enabled:
        raise ServiceUnavailable("streaming is off (STREAMING_ENABLED=false)")
    await DatasetSearchAPI().stream_to_jsonl(query, output, batch_size, tally)
