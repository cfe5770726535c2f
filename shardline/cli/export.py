"""export: Clara's script. Writes a search of UDS3 to a local file, without Kafka or a store of datasets."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import Annotated

import typer

from shardline.cli.options import Json, complete, quiet_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog='Example: shardline export --query "Baurecht Dachanlage" --output data/training.jsonl'
    )(export)


def export(
    query: Annotated[str, typer.Option(help="What to search for.")],
    output: Annotated[Path, typer.Option(help="The JSONL file to write, completely or not at all.")],
    top_k: Annotated[int, typer.Option(min=1, help="Documents to read, before the filter.")] = 1000,
    domain: Annotated[str | None, typer.Option(help="Only this domain.")] = None,
    min_quality: Annotated[float, typer.Option(min=0.0, max=1.0, help="Lowest quality score kept.")] = 0.5,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Documents of one batch; STREAMING_BATCH_SIZE by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Search UDS3 and write training lines to a file, like Clara's script. Exit 1 on any failure."""
    from shardline.clara import DatasetSearchAPI, DatasetSearchQuery
    from shardline.cli.console import EXIT_FAILED, print_error, print_json, print_message
    from shardline.services.row_stream import StreamCounts
    from shardline_common.errors import ServiceUnavailable

    settings, counts = quiet_settings(), StreamCounts()
    search = DatasetSearchQuery(
        query_text=query,
        top_k=top_k,
        filters={"domain": domain} if domain else None,
        min_quality_score=min_quality,
        weights={"vector": 0.6, "graph": 0.4},
    )
    if not settings.streaming_enabled:
        print_error(ServiceUnavailable("streaming is off (STREAMING_ENABLED=false)"))
        raise typer.Exit(EXIT_FAILED)
    try:
        api = DatasetSearchAPI()
        complete(api.stream_to_jsonl(search, output, batch_size or settings.streaming_batch_size, counts))
    except ServiceUnavailable as error:
        # Clara's script exits with 1 also when a service cannot be reached.
        print_error(error)
        raise typer.Exit(EXIT_FAILED) from None
    if json:
        print_json(
            {"output": str(output), "rows": counts.rows, "read": counts.read, "rejected": counts.rejected}
        )
    print_message(f"{counts.rows:,} of {counts.read:,} documents were written to {output}")
