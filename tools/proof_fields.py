"""The kinds of objects in a dataset and their fields: all that `verify` covers.

tests/integration/test_proof.py changes each of them, and fails when a dataset has one that is not listed.
`*` is a name that depends on the data, `[]` an element of a list.
"""

WHOLE = (
    "data/<split>/part-…",
    "rejected/part-…",
    "dead-letters/part-…",
    "_state/plan/<page>.json",
    "README.md",
    "_SUCCESS",
)
"""The kinds that are compared as bytes only."""

_TOTALS = (
    "rows",
    "bytes",
    "rejected.*",
    "dead.*",
    "hash_sum",
    "words",
    "quality",
    "scanned_bytes",
    "segments",
)
_SUMS = ("documents", "rows", "rejected", "dead_letters", "bytes", "words", "mean_quality")
_COMPLETENESS = {
    parent: tuple(f"{parent}.completeness.*.{name}" for name in ("level", "how"))
    for parent in ("source", "findings")
}
_OBJECT = ("key", "plain_sha256", "stored_bytes", "stored_sha256")

FIELDS: dict[str, tuple[str, ...]] = {
    "manifest.json": (
        "version",
        "job.version",
        "job.job_id",
        "job.name",
        "job.source.type",
        "job.source.paths[]",
        "job.query.text",
        "job.query.top_k",
        "job.query.filters",
        "job.query.search_types[]",
        *(f"job.query.weights.{name}" for name in ("graph", "keyword", "vector")),
        "job.quality.min_score",
        "job.quality.relevance",
        "job.quality.keep_rejected",
        "job.quality.max_dead_letters",
        "job.format.type",
        "job.format.metadata",
        "job.output.compression",
        "job.output.shard_bytes",
        "job.output.validation_fraction",
        "job.output.group_by",
        "job.partitions",
        "job.slices",
        "job.max_document_bytes",
        "job.submitted_by",
        "job.purpose",
        "job.labels.*",
        "spec_digest",
        "digest",
        "attempt",
        "software",
        "accepted_at",
        "completed_at",
        "warnings",
        *(f"totals.{name}" for name in _SUMS),
        *(f"splits.*.{name}" for name in _SUMS),
        "rejected.*",
        "dead_letters.*",
        "source.type",
        "source.count",
        *_COMPLETENESS["source"],
        *(f"partitions[].{name}" for name in ("partition", "messages", "hash_sum")),
        "schema.columns.*",
        "schema.features[][]",
        "rules",
        *(
            f"shards[].{name}"
            for name in ("key", "split", "partition", "first", "next", "rows", "bytes", "sha256")
        ),
        *(f"objects[].{name}" for name in ("key", "bytes", "sha256")),
    ),
    "_state/chain/<partition>/<sequence>.json": (
        "split",
        "partition",
        "first",
        "next",
        "key",
        "rejected_key",
        "sha256",
        *(f"segment.{name}" for name in _TOTALS),
        *(f"upto.{name}" for name in _TOTALS),
        "position[]",
        "attempt",
        "offset",
        *(f"objects.{kind}.{name}" for kind in ("data", "rejected", "dead_letters") for name in _OBJECT),
    ),
    "_state/plan.json": (
        "frozen[].path",
        "frozen[].size",
        "frozen[].version",
        "frozen[].changed",
        "columns.*",
        "notes",
        "rules",
        "renamed",
        "without_column",
        *(f"slices[].{end}[]" for end in ("start", "end")),
    ),
    "_state/outcome-<attempt>.json": (
        "attempt",
        "ending",
        "at",
        "accepted_at",
        "software",
        "code",
        "message",
        "source_count",
        "produced[][]",
        *_COMPLETENESS["findings"],
    ),
}
"""The kinds that are JSON, with the paths of their fields."""
