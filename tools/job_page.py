"""docs/job.md: four complete jobs, then each field of a job message with a sentence and an example."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_json

from shardline_common.job.spec import (
    CsvOptions,
    Dedup,
    FieldMapping,
    FilesSource,
    FilterUse,
    Format,
    JobSpec,
    Near,
    Output,
    Pii,
    Quality,
    Query,
    Range,
    Request,
    Sample,
    SeededOrder,
    Shards,
    Splits,
    ThemisSource,
    Uds3Source,
)
from tools.schema_pages import JOB_PARTS, Json, type_text, wrapped

MODELS: tuple[type[BaseModel], ...] = (
    JobSpec,
    FilesSource,
    FieldMapping,
    CsvOptions,
    Uds3Source,
    ThemisSource,
    Query,
    Range,
    Quality,
    FilterUse,
    Format,
    Dedup,
    Near,
    Sample,
    Pii,
    Output,
    SeededOrder,
    Shards,
    Splits,
    Request,
)
_WORDS = {
    ("JobSpec", "source"): "`files`, `uds3` or `themis`, see below",
    ("Query", "filters"): "object: field to value, list of values, or range",
    ("Range", "gte"): "string, number or boolean",
    ("Range", "lte"): "string, number or boolean",
    ("Format", "metadata"): "list of strings, or object: name to type",
}
_BOUNDS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " items"),
)
# The largest integer of JSON. As a limit it is not shown.
_UNBOUNDED = 1 << 53
WHOLE_JOBS = (
    (
        "From files to a local dataset",
        """JSONL files become plain shards. A twentieth of the documents goes into the validation split. The
columns are fixed, so that they do not depend on the first documents. Run it with
`shardline run job.json --output datasets`.""",
        """{
  "job_id": "laws-2026",
  "name": "laws",
  "source": {"type": "files", "paths": ["laws/*.jsonl.zst"]},
  "quality": {"min_score": 0.5, "max_dead_letters": 100},
  "format": {"metadata": {"title": "string", "domain": "string", "pages": "int"}},
  "output": {"shard_bytes": 8388608, "validation_fraction": 0.05}
}""",
    ),
    (
        "A search over UDS3",
        """Three searches find the best 5,000 documents among those that pass the filters; their results are
fused by rank. With normalized relevance a document that is first in every list has the relevance 1.
Submit it with `shardline submit job.json --wait`.""",
        """{
  "job_id": "baurecht-2026-11",
  "name": "baurecht",
  "source": {"type": "uds3"},
  "query": {
    "text": "Baurecht Dachanlage",
    "top_k": 5000,
    "filters": {"domain": "verwaltungsrecht", "created_at": {"gte": "2020-01-01"}},
    "search_types": ["vector", "graph", "keyword"],
    "weights": {"vector": 0.4, "graph": 0.3, "keyword": 0.3}
  },
  "quality": {"min_score": 0.6, "relevance": "normalized", "keep_rejected": true},
  "submitted_by": "m.huber",
  "purpose": "LoRA adapter for building law"
}""",
    ),
    (
        "A table of ThemisDB, with filters",
        """The judgments of one year in one domain. Each row is read as it was stored. Eight partitions let up
to eight workers share the job.""",
        """{
  "job_id": "judgments-2025",
  "name": "judgments",
  "source": {
    "type": "themis",
    "table": "judgments",
    "key": "judgment_id",
    "domain": "verwaltungsrecht",
    "from_date": "2025-01-01",
    "to_date": "2025-12-31",
    "lossless": true
  },
  "query": {"filters": {"court": ["VG", "OVG", "BVerwG"]}},
  "output": {"compression": "zstd"},
  "partitions": 8
}""",
    ),
    (
        "An assembled dataset",
        """Of documents with the same text, or nearly the same, the first stays. The rows are shuffled by a
seed and cut into equal shards, a multiple of 8 in each split: as many for each of 8 ranks. The judgments of
one case are in one split. It needs the extra `assembly` (`pip install 'shardline[assembly]'`).""",
        """{
  "job_id": "judgments-train-2026",
  "name": "judgments",
  "source": {"type": "files", "paths": ["judgments/*.parquet"]},
  "quality": {"min_score": 0.5, "duplicate_ids": "first"},
  "dedup": {"exact": true, "near": {"verify": 0.8}},
  "output": {
    "order": {"seed": 7},
    "shards": {"multiple_of": 8, "equal": true},
    "splits": {"train": 0.9, "validation": 0.05, "test": 0.05},
    "group_by": "case_number"
  },
  "partitions": 8
}""",
    ),
)


def job_page(schemas: Mapping[str, Json]) -> str:
    """Return the complete jobs, then the tables of fields."""
    jobs = [f"### {title}\n\n{wrapped(text)}\n\n```json\n{job}\n```\n" for title, text, job in WHOLE_JOBS]
    parts = [_part(model, schemas) for model in MODELS]
    return "\n".join(["## Whole jobs\n", *jobs, *parts])


def _part(model: type[BaseModel], schemas: Mapping[str, Json]) -> str:
    schema = schemas[model.__name__]
    rows = [
        f"| `{name}` | {about['description']} | {_values(model, name, about, schemas)} "
        f"| {_default(model, name)} | {_example(model, name)} |"
        for name, about in schema["properties"].items()
    ]
    head = "| field | meaning | values | default | example |\n|---|---|---|---|---|\n"
    return (
        f"## {JOB_PARTS[model.__name__]}\n\n{schema['description'].strip()}\n\n"
        + head
        + "\n".join(rows)
        + "\n"
    )


def _values(model: type[BaseModel], name: str, schema: Json, schemas: Mapping[str, Json]) -> str:
    words = _WORDS.get((model.__name__, name)) or type_text(schema, schemas)
    limits = [limit for option in (schema, *schema.get("anyOf", ())) for limit in _limits(option)]
    return ", ".join([words, *limits]).replace("|", "\\|")


def _limits(schema: Json) -> Iterator[str]:
    for low, high, unit in _BOUNDS:
        minimum, maximum = schema.get(low), schema.get(high)
        if minimum is not None and maximum not in (None, _UNBOUNDED):
            yield f"{minimum:,} to {maximum:,}{unit}"
        elif minimum is not None:
            yield f"at least {minimum:,}{unit}"
        elif maximum is not None:
            yield f"at most {maximum:,}{unit}"
    if "pattern" in schema:
        yield f"matches `{schema['pattern']}`"


def _default(model: type[BaseModel], name: str) -> str:
    value = model.model_fields[name].get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    return "its defaults" if isinstance(value, BaseModel) else _code(value)


def _example(model: type[BaseModel], name: str) -> str:
    # From the field: the schema sorts the keys of its examples.
    examples = model.model_fields[name].examples
    if not examples:
        raise ValueError(f"{model.__name__}.{name} has no example")
    return _code(examples[0])


def _code(value: Any) -> str:
    # Spaces behind commas and colons, as people write JSON.
    text = to_json(value).decode() if not isinstance(value, dict | list) else _spaced(value)
    return f"`{text}`".replace("|", "\\|")


def _spaced(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_spaced(key)}: {_spaced(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_spaced, value)) + "]"
    return orjson.dumps(value).decode()
