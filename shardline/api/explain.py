"""explain: what became of a document."""

import os
from collections.abc import Mapping

from shardline.api.inputs import settings_of
from shardline.api.results import ExplainRecord, ExplainResult
from shardline.services.explain import explain_document
from shardline_common.assembly.find_record import FoundRecord


async def explain(
    uri: str | os.PathLike[str], document_id: str, *, settings: Mapping[str, object] | None = None
) -> ExplainResult:
    """Find what became of a document of a finished dataset.

    An assembled dataset is asked by its sidecars; of any other, all shards are read.

    Args:
        uri: the dataset's folder: a directory, or `s3://bucket/prefix/…`.
        document_id: the id of the document.
        settings: settings by name, used before the environment, .env and shardline.toml.

    Raises:
        JobFailed: an object of the dataset is damaged.
        UsageError: a setting is wrong, the folder is no finished dataset, or the extra `assembly` is missing.
        ServiceUnavailable: the store cannot be reached.
    """
    found = await explain_document(os.fspath(uri), document_id, settings_of(settings))
    return ExplainResult(
        document_id=document_id, records=tuple(map(_record, found.records)), notes=found.notes
    )


def _record(found: FoundRecord) -> ExplainRecord:
    return ExplainRecord(
        document_id=found.document_id,
        outcome=found.outcome,
        shard=found.shard,
        line=found.line,
        reason=found.reason,
        value=found.value,
        threshold=found.threshold,
        instead=None if found.instead is None else _record(found.instead),
        dataset=found.dataset,
    )
