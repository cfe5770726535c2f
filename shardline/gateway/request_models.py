"""The bodies of Clara's requests, and the jobs made from them. Pure.

The class names are the component names of the OpenAPI description, so generated clients use them.
"""

import re
import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from shardline.services.search_job import search_body
from shardline_common.job.spec import SCALAR, JobSpec, Range, parse_job, slugify

_Filters = dict[str, SCALAR | list[SCALAR] | Range] | None
ExportFormat = Literal["jsonl", "parquet", "csv", "json"]
SearchName = Literal["vector", "graph", "keyword", "relational"]
# Letters, digits, spaces, underscores, and the quotes of English, French and German.
_NAME = re.compile("(?=.*[^\\W_])[\\w '\"\u201e\u201c\u201d\u201a\u2018\u2019\u00ab\u00bb]+")
_EXAMPLE: dict[str, Any] = {
    "name": "Baurecht Dachanlagen",
    "description": "Bescheide zu Anlagen auf Dächern",
    "search_query": {
        "query_text": "Baurecht Dachanlage",
        "top_k": 5000,
        "filters": {"domain": "verwaltungsrecht", "created_at": {"gte": "2020-01-01"}},
        "min_quality_score": 0.5,
        "search_types": ["vector", "graph"],
        "weights": {"vector": 0.6, "graph": 0.4},
    },
    "export_formats": ["jsonl"],
}


# The range of a bigint. Larger numbers fit into no store, and orjson does not write all of them.
_MIN_INT, _MAX_INT = -(1 << 63), (1 << 63) - 1


def _check_storable(value: object) -> None:
    """Raise ValueError when a value can be in no store, so that a filter with it would fail in each."""
    if isinstance(value, str):
        # JSON can escape half of a surrogate pair, and pydantic lets it pass in a union.
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("a text may not have NUL or half of a surrogate pair")
    elif isinstance(value, int) and not _MIN_INT <= value <= _MAX_INT:
        raise ValueError("an integer may have up to 64 bits")


class _RequestModel(BaseModel):
    # Unknown fields are ignored: Clara's clients may send fields that Shardline does not have.
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class SearchQuery(_RequestModel):
    """A search."""

    query_text: Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"\S")] = Field(
        description="The text to search for."
    )
    top_k: Annotated[int, Field(ge=1, le=1 << 53)] = Field(
        100, description="Number of documents to read, before filtering."
    )
    filters: _Filters = Field(None, description="Field → value, list of values, or {gte, lte}.")
    min_quality_score: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="The lowest quality score of a row."
    )
    search_types: Annotated[list[SearchName], Field(min_length=1, max_length=10)] = Field(
        ["vector", "graph"], description="`relational` is the keyword search."
    )
    weights: dict[SearchName, Annotated[float, Field(ge=0, le=1e6)]] | None = Field(
        None, description="Weight of each search; null: Shardline's defaults."
    )

    @field_validator("query_text")
    @classmethod
    def _storable_text(cls, value: str) -> str:
        _check_storable(value)
        return value

    @field_validator("filters")
    @classmethod
    def _storable_filters(cls, value: _Filters) -> _Filters:
        for name, wanted in (value or {}).items():
            values = [wanted.gte, wanted.lte] if isinstance(wanted, Range) else wanted
            for one in (name, *values) if isinstance(values, list) else (name, values):
                _check_storable(one)
        return value


class CreateRequest(_RequestModel):
    """A dataset to create, or rows to stream."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: Annotated[str, Field(min_length=3, max_length=100)] = Field(
        description="Letters and digits of any script (at least one), spaces, _ and quotes."
    )
    description: Annotated[str, Field(max_length=2000)] = ""
    search_query: SearchQuery
    export_formats: Annotated[list[ExportFormat], Field(max_length=4)] = Field(
        ["jsonl"], description="Formats wanted later; the export call makes each of them."
    )

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(
                "a name may have letters, digits, spaces, _ and quotes, and needs a letter or digit"
            )
        return value


class ExportRequest(_RequestModel):
    """The format of an export."""

    format: ExportFormat
    include_metadata: bool = Field(True, description="false: leave the metadata columns out.")
    escape_formulas: bool = Field(
        True,
        description="CSV: put ' before a text that a spreadsheet takes for a formula. false: leave the texts "
        "as they are, for programs.",
    )


def make_job_id(name: str, idempotency_key: str | None) -> str:
    """Make the job id of a dataset from its name: with a key always the same id, else a new one."""
    tail = secrets.token_hex(6)
    if idempotency_key is not None:
        tail = sha256(idempotency_key.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{slugify(name)[:50].rstrip('-')}-{tail}"


def job_from_request(
    request: CreateRequest,
    job_id: str,
    submitted_by: str | None,
    defaults: Mapping[str, Any] | None = None,
) -> JobSpec:
    """Make the job that creates the dataset. `defaults`: values of fields that a request does not have.

    Raises:
        JobInvalid: a field is not valid; the message names each.
    """
    query = request.search_query
    body = search_body(
        text=query.query_text,
        top_k=query.top_k,
        filters=query.model_dump(mode="json")["filters"],
        min_score=query.min_quality_score,
        search_types=query.search_types,
        weights={str(name): weight for name, weight in (query.weights or {}).items()},
    )
    # The list shows users why a document is not in the dataset. It is small, because it has no texts.
    body["quality"]["keep_rejected"] = True
    body |= {
        "job_id": job_id,
        "name": request.name,
        "submitted_by": submitted_by,
        "purpose": request.description or None,
        "labels": {"export_formats": ",".join(request.export_formats)},
    }
    return parse_job(orjson.dumps(body), defaults=defaults)
