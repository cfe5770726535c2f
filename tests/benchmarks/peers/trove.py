"""datatrove: `trove.py INPUT OUTPUT_FOLDER`, one task."""

import sys
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from task import MIN_SCORE, row, score


def _fields(document: Document) -> dict[str, Any]:
    metadata: dict[str, Any] = document.metadata
    return {"content": document.text, "document_id": document.id} | metadata


def passes(document: Document) -> bool:
    """Whether a document becomes a row."""
    return score(_fields(document)) >= MIN_SCORE and bool(document.text.strip())


def rendered(_writer: JsonlWriter, document: Document) -> dict[str, Any]:
    """The row of a document that passes."""
    found: dict[str, Any] = row(_fields(document))
    return found


def main() -> None:
    """Turn the documents of a JSONL file into rows."""
    path, output = Path(sys.argv[1]), Path(sys.argv[2])
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(
                str(path.parent),
                glob_pattern=path.name,
                text_key="content",
                id_key="document_id",
                add_file_path=False,
            ),
            LambdaFilter(passes),
            JsonlWriter(str(output), compression=None, adapter=rendered),
        ],
        tasks=1,
        logging_dir=str(output.parent / f"{output.name}-logs"),
    ).run()


if __name__ == "__main__":
    main()
