"""explain: what became of a document of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import Json, complete, quiet_settings

if TYPE_CHECKING:
    from shardline.services.explain import Explanation
    from shardline_common.assembly.find_record import FoundRecord


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog="Example: shardline explain datasets/laws/laws-2026 document-17")(explain)


def explain(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="The dataset's folder: a directory or s3://….")
    ],
    document_id: Annotated[str, typer.Argument(metavar="DOCUMENT_ID", help="The id of the document.")],
    json: Json = False,
) -> None:
    """Say what became of a document: its shard and line, or why the dataset has no row of it."""
    from shardline.cli.console import print_json, print_line, print_message

    found = complete(_explain(dataset, document_id))
    if json:
        print_json(found.to_json())
        return
    for record in found.records:
        print_line(_sentence(record))
    if not found.records:
        print_line(f"{document_id}: no record of it")
    for note in found.notes:
        print_message(f"note: {note}")


async def _explain(dataset: str, document_id: str) -> Explanation:
    from shardline.cli.bar import progress_bar
    from shardline.services.explain import explain_document

    with progress_bar("reading") as on_object:
        return await explain_document(dataset, document_id, quiet_settings(), on_object)


def _sentence(record: FoundRecord) -> str:
    if record.shard is not None:
        return f"{record.document_id}: {record.shard}, line {record.line}"
    why = f"{record.document_id}: {record.outcome.replace('_', ' ')}: {record.reason}"
    if record.value is not None:
        limit = "" if record.threshold is None else f", the threshold is {record.threshold:g}"
        why += f": it has {record.value:g}{limit}"
    if record.instead is not None:
        why += f" of {_sentence(record.instead)}"
    return why + (f" {record.dataset}" if record.dataset else "")
