"""Clara's Python API on Shardline: change the import line, and nothing else.

```python
from shardline.clara import DatasetSearchAPI, DatasetSearchQuery

api = DatasetSearchAPI()
async for document in api.stream_datasets(DatasetSearchQuery("Baurecht Dachanlage")):
    print(document.document_id, document.quality_score)
```

`DatasetSearchAPI()` reads the settings: the environment, .env, shardline.toml. Every failure raises an
error of `shardline.errors`, except in `export_to_jsonl`.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from shardline.services.row_stream import StreamCounts, row_batches
from shardline.services.search_job import search_body
from shardline.services.wiring.sources import source_factory
from shardline.services.wiring.uds3 import uds3_configured
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
        # Computed when it is read, because settings are never read at import.
        return uds3_configured(load_settings().settings)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass
class DatasetSearchQuery:
    """A search. Without `weights` Shardline's own apply; "relational" means the keyword search."""

    query_text: str
    top_k: int = 100
    filters: dict[str, Any] | None = None
    min_quality_score: float = 0.5
    search_types: list[str] = field(default_factory=lambda: ["vector", "graph"])
    weights: dict[str, float] | None = None


@dataclass
class DatasetDocument:
    """A document that was found and passed the quality filter. `score` is its relevance."""

    document_id: str
    content: str
    metadata: dict[str, Any] = field(default_factory=dict)
    score: float = 0.0
    quality_score: float = 0.5

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        return asdict(self)

    def to_training_format(self) -> dict[str, Any]:
        """Return the document as a training line holds it."""
        return {
            "text": self.content,
            "metadata": self.metadata,
            "source": "uds3_search",
            "quality_score": self.quality_score,
            "document_id": self.document_id,
            "relevance_score": self.score,
        }


class DatasetSearchAPI:
    """Searches UDS3. The settings choose the stores, unless `uds3_strategy` gives a source factory."""

    def __init__(self, uds3_strategy: OpenSource | None = None) -> None:
        self.search_api: OpenSource | None = uds3_strategy
        if uds3_strategy is None:
            settings = load_settings().settings
            if uds3_configured(settings):
                self.search_api = source_factory(settings, Path(), confined=False, remote=None)

    async def stream_datasets(
        self, query: DatasetSearchQuery, batch_size: int = 100
    ) -> AsyncGenerator[DatasetDocument, None]:
        """Yield the documents that pass the quality filter, best first, each once, in bounded memory.

        Raises:
            JobFailed: the store has no such field or search.
            SourceUnavailable: a store cannot be reached; this can happen after documents were yielded.
        """
        async with aclosing(self._batches(query, batch_size, StreamCounts())) as batches:
            async for lines in batches:
                for line in lines:
                    yield _document(line)

    async def search_datasets(self, query: DatasetSearchQuery) -> list[DatasetDocument]:
        """Return the documents of `stream_datasets` as a list, and raise as it does."""
        return [document async for document in self.stream_datasets(query)]

    async def stream_to_jsonl(
        self,
        query: DatasetSearchQuery,
        output_path: str | Path,
        batch_size: int = 100,
        counts: StreamCounts | None = None,
    ) -> int:
        """Write training lines to a file and return their number. A failure leaves the file as it was.

        Raises:
            UsageError: the file cannot be written.
            ShardlineError: as `stream_datasets`.
        """
        counts = counts or StreamCounts()
        async with (
            aclosing(self._batches(query, batch_size, counts)) as batches,
            AsyncAtomicFile(Path(output_path)) as file,
        ):
            async for lines in batches:
                await file.write(b"".join(lines))
        _log.info("%d documents were written to %s", counts.rows, output_path)
        return counts.rows

    def _batches(
        self, query: DatasetSearchQuery, batch_size: int, counts: StreamCounts
    ) -> AsyncGenerator[list[bytes], None]:
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
        return row_batches(spec, self.search_api, batch_size, counts)

    def export_to_jsonl(self, documents: Iterable[DatasetDocument], output_path: str | Path) -> bool:
        """Write documents as training lines; creates the folders. Logs a failure and returns False."""
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
        """Return counts and means, and the number of documents of each domain and type."""
        count = len(documents)
        statistics: dict[str, Any] = {
            "total_documents": count,
            "avg_quality_score": _mean(document.quality_score for document in documents),
            "avg_relevance_score": _mean(document.score for document in documents),
            "total_tokens": sum(len(document.content.split()) for document in documents),
        }
        if documents:
            statistics["domains"] = _counts(documents, "domain")
            statistics["document_types"] = _counts(documents, "document_type")
        return statistics


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def _counts(documents: Sequence[DatasetDocument], name: str) -> Mapping[str, int]:
    return dict(Counter(document.metadata.get(name) or "unknown" for document in documents))


def _document(line: bytes) -> DatasetDocument:
    value = orjson.loads(line)
    return DatasetDocument(
        document_id=value["document_id"],
        content=value["text"],
        metadata=value["metadata"],
        score=value["relevance_score"],
        quality_score=value["quality_score"],
    )
