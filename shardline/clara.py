"""Clara's Python API on Shardline: change the import line, and nothing else.

```python
from shardline.clara import DatasetSearchAPI, DatasetSearchQuery

api = DatasetSearchAPI()
async for document in api.stream_datasets(DatasetSearchQuery("Baurecht Dachanlage")):
    print(document.document_id, document.quality_score)
```

Where the stores are is read from the settings when an API is made. What fails raises; nothing is
left out quietly.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from shardline.services.row_stream import StreamCounts, StreamRow, row_pieces
from shardline.services.search_job import search_body
from shardline.services.wiring import source_factory, uds3_configured
from shardline_common.errors import ServiceUnavailable, ShardlineError
from shardline_common.job.spec import parse_job
from shardline_common.runtime.atomic_file import AsyncAtomicFile, AtomicFile
from shardline_common.settings.load import load_settings
from shardline_producer.rows import escaped
from shardline_producer.sources.source import OpenSource

__all__ = [
    "UDS3_AVAILABLE",
    "DatasetDocument",
    "DatasetSearchAPI",
    "DatasetSearchQuery",
]

_log = logging.getLogger(__name__)
UDS3_AVAILABLE: bool


def __getattr__(name: str) -> Any:
    if name == "UDS3_AVAILABLE":
        # Asked for when it is read: settings are never read at import.
        return uds3_configured(load_settings().settings)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass
class DatasetSearchQuery:
    """A search. `weights` None: Shardline's own; "relational" among the types is the keyword search."""

    query_text: str
    top_k: int = 100
    filters: dict[str, Any] | None = None
    min_quality_score: float = 0.5
    search_types: list[str] = field(default_factory=lambda: ["vector", "graph"])
    weights: dict[str, float] | None = None


@dataclass
class DatasetDocument:
    """A document that was found and kept. `score` is its relevance."""

    document_id: str
    content: str
    metadata: dict[str, Any] = field(default_factory=dict)
    score: float = 0.0
    quality_score: float = 0.5

    def to_dict(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def to_training_format(self) -> dict[str, Any]:
        """The document as a training line holds it."""
        return {
            "text": self.content,
            "metadata": self.metadata,
            "source": "uds3_search",
            "quality_score": self.quality_score,
            "document_id": self.document_id,
            "relevance_score": self.score,
        }


class DatasetSearchAPI:
    """Searches UDS3. `uds3_strategy`: a source factory of one's own; by default the settings tell."""

    def __init__(self, uds3_strategy: OpenSource | None = None) -> None:
        self.search_api: OpenSource | None = uds3_strategy
        if uds3_strategy is None:
            settings = load_settings().settings
            if uds3_configured(settings):
                self.search_api = source_factory(settings, Path(), confined=False, remote=None)

    async def stream_datasets(
        self, query: DatasetSearchQuery, batch_size: int = 100
    ) -> AsyncGenerator[DatasetDocument, None]:
        """Documents that pass the quality filter, best first, each once; memory does not grow with them.

        Raises:
            JobFailed: the query does not fit the store.
            SourceUnavailable: a store cannot be reached, also in the middle.
        """
        async with aclosing(self._pieces(query, batch_size, StreamCounts())) as pieces:
            async for rows in pieces:
                for row in rows:
                    yield _document(row)

    async def search_datasets(self, query: DatasetSearchQuery) -> list[DatasetDocument]:
        """All of them as a list: for small results. Raises as `stream_datasets`."""
        return [document async for document in self.stream_datasets(query)]

    async def stream_to_jsonl(
        self,
        query: DatasetSearchQuery,
        output_path: str | Path,
        batch_size: int = 100,
        tally: StreamCounts | None = None,
    ) -> int:
        """Write the training lines to a file and give their number; the file is there whole, or not at all.

        Raises:
            UsageError: the file cannot be written.
            ShardlineError: as `stream_datasets`; what stood under the name before is untouched.
        """
        counted = tally or StreamCounts()
        async with (
            aclosing(self._pieces(query, batch_size, counted)) as pieces,
            AsyncAtomicFile(Path(output_path)) as file,
        ):
            async for rows in pieces:
                await file.write(b"".join(row.line for row in rows))
        _log.info("%d documents were written to %s", counted.rows, output_path)
        return counted.rows

    def _pieces(
        self, query: DatasetSearchQuery, batch_size: int, tally: StreamCounts
    ) -> AsyncGenerator[list[StreamRow], None]:
        if self.search_api is None:
            raise ServiceUnavailable(
                "UDS3 is not configured", hint="set POSTGRES_HOST; UDS3_ENABLED must not be false"
            )
        body = search_body(
            text=query.query_text,
            top_k=query.top_k,
            filters=query.filters,
            min_score=query.min_quality_score,
            search_types=query.search_types,
            weights=query.weights,
        )
        spec = parse_job(orjson.dumps(body | {"job_id": "search", "name": "search"}))
        return row_pieces(spec, self.search_api, batch_size, tally)

    def export_to_jsonl(self, documents: Iterable[DatasetDocument], output_path: str | Path) -> bool:
        """Write documents as training lines; makes the folders above. False, with a log line, on failure."""
        lines = (escaped(orjson.dumps(document.to_training_format())) + b"\n" for document in documents)
        try:
            with AtomicFile(Path(output_path)) as file:
                for line in lines:
                    file.write(line)
        except (ShardlineError, TypeError) as error:
            _log.error("%s was not written: %s", output_path, error)
            return False
        return True

    def get_statistics(self, documents: Sequence[DatasetDocument]) -> dict[str, Any]:
        """Sums and means, and how many documents there are of each domain and type."""
        count = len(documents)
        found: dict[str, Any] = {
            "total_documents": count,
            "avg_quality_score": _mean(document.quality_score for document in documents),
            "avg_relevance_score": _mean(document.score for document in documents),
            "total_tokens": sum(len(document.content.split()) for document in documents),
        }
        if documents:
            found["domains"] = _counts(documents, "domain")
            found["document_types"] = _counts(documents, "document_type")
        return found


def _mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held) if held else 0.0


def _counts(documents: Sequence[DatasetDocument], name: str) -> Mapping[str, int]:
    return dict(Counter(document.metadata.get(name) or "unknown" for document in documents))


def _document(row: StreamRow) -> DatasetDocument:
    value = orjson.loads(row.line)
    return DatasetDocument(
        document_id=value["document_id"],
        content=value["text"],
        metadata=value["metadata"],
        score=value["relevance_score"],
        quality_score=value["quality_score"],
    )
