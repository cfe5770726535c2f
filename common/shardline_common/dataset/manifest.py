"""The manifest: built from job, plan, outcome and contents of a dataset; `verify` compares it with them.

Version 3 is that of assembled datasets: its shards are numbered in their split, and `assembly` names the
decision by which they were made. Version 2 lists the stored bytes of every object under `objects`. Version 1
has no such list.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from shardline_common.dataset.assembled import assembled_shard
from shardline_common.dataset.chain import ChainRecord, Count, Totals
from shardline_common.dataset.contents import DatasetContents
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.columns import Columns
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec
from shardline_common.job.stored_json import read_stored

VERSION = 2
ASSEMBLED_VERSION = 3
_QUALITY_UNITS = 10_000


def build_manifest(spec: JobSpec, outcome: Outcome, plan: Plan, contents: DatasetContents) -> dict[str, Any]:
    """The manifest of a completed job: every shard, every sum, every object, and the digest.

    A pure function of job, outcome, plan and contents: every worker builds the same.
    """
    layout, columns, splits = Layout.of(spec), Columns.from_json(plan.columns), contents.splits
    sums, assembled = contents.totals, contents.assembled
    return {
        "version": VERSION if assembled is None else ASSEMBLED_VERSION,
        "job": spec.model_dump(mode="json"),
        "spec_digest": spec.digest,
        "digest": contents.digest,
        "attempt": outcome.attempt,
        "software": outcome.software,
        "accepted_at": outcome.accepted_at,
        "completed_at": outcome.at,
        "warnings": _warnings(sums, plan),
        "totals": sums_json(sums),
        "splits": {split: sums_json(part) for split, part in splits.items()},
        "rejected": sums.rejected,
        "dead_letters": sums.dead,
        **({"pii": sums.pii} if sums.pii else {}),
        "source": {
            "type": spec.source.type,
            "count": outcome.source_count,
            **plan.notes,
            **outcome.findings,
        },
        "partitions": [
            {"partition": number, "messages": count, "hash_sum": f"{hash_sum:016x}"}
            for number, (count, hash_sum) in enumerate(outcome.produced)
        ],
        "schema": {"columns": columns.to_json(), "features": columns.features(), **_schema_notes(plan)},
        **({"rules": plan.rules} if plan.rules > 1 else {}),
        **({"filters": [asdict(one) for one in plan.filters]} if plan.filters else {}),
        "shards": manifest_shards(contents, layout),
        **({} if assembled is None else {"assembly": assembled.notes()}),
        "objects": [
            {"key": key, "bytes": stored.size, "sha256": stored.sha256}
            for key, stored in sorted(contents.objects.items())
        ],
    }


def differing_fields(
    found: Mapping[str, Any], spec: JobSpec, outcome: Outcome, plan: Plan, contents: DatasetContents
) -> list[str]:
    """The fields of a manifest that are not those of `build_manifest`, sorted."""
    built = orjson.loads(orjson.dumps(build_manifest(spec, outcome, plan, contents)))
    return [name for name in sorted({*built, *found}) if built.get(name) != found.get(name)]


def _schema_notes(plan: Plan) -> dict[str, Any]:
    notes = {"renamed": plan.renamed, "fields_without_column": plan.without_column}
    return {name: value for name, value in notes.items() if value}


def _warnings(sums: Totals, plan: Plan) -> list[str]:
    found = [] if sums.rows else ["empty"]
    return found + [name for name in ("left_out", "degraded") if plan.notes.get(name)]


def manifest_shards(contents: DatasetContents, layout: Layout) -> list[dict[str, Any]]:
    """The shards of a dataset as the manifest lists them."""
    if contents.assembled is not None:
        return [assembled_shard(record) for record in contents.assembled.shards]
    return [_manifest_shard(record, layout) for record in contents.records if record.segment.rows]


def _manifest_shard(record: ChainRecord, layout: Layout) -> dict[str, Any]:
    """A segment with rows as the manifest lists it; its key is relative to the dataset."""
    key = layout.data(record.split, record.partition, record.first)
    return {
        "key": key.removeprefix(layout.root),
        "split": record.split,
        "partition": record.partition,
        "first": record.first,
        "next": record.next,
        "rows": record.segment.rows,
        "bytes": record.segment.bytes,
        "sha256": record.sha256,
    }


def sums_json(sums: Totals) -> dict[str, Any]:
    """Totals as the manifest shows them."""
    mean = round(sums.quality / sums.rows / _QUALITY_UNITS, 4) if sums.rows else None
    return {
        "documents": sums.records,
        "rows": sums.rows,
        "rejected": sum(sums.rejected.values()),
        "dead_letters": sum(sums.dead.values()),
        "bytes": sums.bytes,
        "words": sums.words,
        "mean_quality": mean,
    }


class _ManifestModel(BaseModel):
    # A later version may add fields; the fields of this version keep their types.
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class ProducedPartition(_ManifestModel):
    """What the producer sent to a partition: messages, and their hash sum in hexadecimal."""

    partition: Count
    messages: Count
    hash_sum: str


class SourceCount(_ManifestModel):
    """The source's own count of documents."""

    count: Count


class RowSchema(_ManifestModel):
    """The metadata columns and their types."""

    columns: dict[str, str]

    @field_validator("columns")
    @classmethod
    def _are_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return Columns.from_json(value).to_json()


class AssemblyNotes(_ManifestModel):
    """Of an assembled dataset the name of its rules, and what its decision says to a person."""

    layout: str = ""
    warnings: list[str] = Field(default_factory=list)


class Manifest(_ManifestModel):
    """The parts of a manifest that `verify` compares. Shards and totals are compared as a whole."""

    version: Count
    job: JobSpec = Field(strict=False)
    spec_digest: str
    digest: str
    attempt: Count
    source: SourceCount
    partitions: list[ProducedPartition]
    rows_schema: RowSchema = Field(alias="schema")
    shards: list[dict[str, Any]]
    totals: dict[str, Any]
    splits: dict[str, dict[str, Any]]
    rejected: dict[str, int]
    dead_letters: dict[str, int]
    assembly: AssemblyNotes | None = None

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """The manifest of its JSON.

        Raises:
            JobFailed: the JSON is not a manifest (`dataset_damaged`), or one of a later version
                (`conservation`); the message names the first wrong field.
        """
        manifest = read_stored(_reader(), data, "manifest.json")
        if manifest.version > ASSEMBLED_VERSION:
            raise JobFailed(
                FailureCode.CONSERVATION,
                f"manifest.json has version {manifest.version}; this Shardline reads up to "
                f"{ASSEMBLED_VERSION}",
                hint="install a newer version",
            )
        return manifest


@cache
def _reader() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)
