"""The job message and the requests on `dataset.jobs` (contract: job message, version 1)."""

import re
from hashlib import sha256
from typing import Annotated, Any, Literal, Self, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shardline_common.errors import JobInvalid

_MOST = 1 << 53
JOB_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"
ColumnType = Literal["string", "int", "float", "bool"]
M = TypeVar("M", bound="Model")
SCALAR = str | int | float | bool | None


class Model(BaseModel):
    """Strict about unknown fields, frozen once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FilesSource(Model):
    """JSONL or NDJSON files, plain, .gz or .zst, local or on S3; globs are sorted by name."""

    type: Literal["files"]
    paths: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=10_000)]


class Uds3Source(Model):
    """The stores of UDS3 that this process is set up for.

    `degrade`: go on without a store that is down, and say so. `hops`: how far a graph search follows edges.
    """

    type: Literal["uds3"]
    degrade: bool = False
    hops: Annotated[int, Field(ge=0, le=3)] = 0


class ThemisSource(Model):
    """A table of ThemisDB. `lossless` None: true, unless that would take over an hour: then planning asks."""

    type: Literal["themis"]
    table: Annotated[str, Field(min_length=1)] = "documents"
    key: Annotated[str, Field(min_length=1)] = "doc_id"
    theme: str | None = None
    domain: str | None = None
    subject: str | None = None
    from_date: str | None = None
    to_date: str | None = None
    lossless: bool | None = None


AnySource = Annotated[FilesSource | Uds3Source | ThemisSource, Field(discriminator="type")]


class Range(Model):
    """An inclusive range of a filter; at least one bound."""

    gte: SCALAR = None
    lte: SCALAR = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.gte is None and self.lte is None:
            raise ValueError("a range needs gte or lte")
        return self


SearchType = Literal["vector", "graph", "keyword"]
_SEARCHES: list[SearchType] = ["vector", "graph", "keyword"]
_WEIGHTS: dict[SearchType, float] = {"vector": 0.4, "graph": 0.3, "keyword": 0.3}
_ALIASES = {"relational": "keyword"}


class Query(Model):
    """What to read of the source. `text` None: no search, all that the filters let through."""

    text: Annotated[str, Field(max_length=10_000)] | None = None
    top_k: Annotated[int, Field(ge=1, le=_MOST)] | None = None
    filters: dict[str, SCALAR | list[SCALAR] | Range] = Field(default_factory=dict)
    search_types: list[SearchType] = Field(default_factory=lambda: list(_SEARCHES))
    weights: dict[SearchType, Annotated[float, Field(ge=0)]] = Field(default_factory=lambda: dict(_WEIGHTS))

    @field_validator("search_types", mode="before")
    @classmethod
    def _known_by_other_names(cls, value: Any) -> Any:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            return value
        return list(dict.fromkeys(_ALIASES.get(name, name) for name in value))

    @field_validator("weights", mode="before")
    @classmethod
    def _weighed_by_other_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {_ALIASES.get(name, name): weight for name, weight in value.items()}

    @property
    def shares(self) -> dict[SearchType, float]:
        """The weight of each search that is asked for and has one: normalised over all keys given."""
        total = sum(self.weights.values())
        asked = {name: self.weights.get(name, 0.0) for name in self.search_types}
        return {name: weight / total for name, weight in asked.items() if weight > 0}


class Quality(Model):
    """What to keep. `max_dead_letters` None: any number; else one more fails the job.

    `relevance` of a search: Clara's raw fused score, or normalized, so that the best possible is 1.
    """

    min_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    relevance: Literal["raw", "normalized"] = "raw"
    keep_rejected: bool = False
    max_dead_letters: Annotated[int, Field(ge=0, le=_MOST)] | None = None


class Format(Model):
    """Shape of a row. `metadata` None: columns are found in the source's first documents."""

    type: Literal["text"] = "text"
    metadata: list[Annotated[str, Field(min_length=1)]] | dict[str, ColumnType] | None = None

    @field_validator("metadata")
    @classmethod
    def _no_reserved_column(cls, value: Any) -> Any:
        if value is not None and "extra" in value:
            raise ValueError("'extra' is the column for everything without a column of its own; leave it out")
        if isinstance(value, list) and len(set(value)) != len(value):
            raise ValueError("a column is named twice")
        return value


class Output(Model):
    """How shards are cut and stored; sizes in bytes of uncompressed rows."""

    compression: Literal["none", "gzip", "zstd"] = "none"
    shard_bytes: Annotated[int, Field(ge=1024, le=1 << 32)] = 67_108_864
    validation_fraction: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    group_by: str | None = None


class JobSpec(Model):
    """A dataset job. The same spec over the same content gives the same dataset digest."""

    version: Literal[1] = 1
    job_id: Annotated[str, Field(pattern=JOB_ID)]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    source: AnySource
    query: Query = Field(default_factory=Query)
    quality: Quality = Field(default_factory=Quality)
    format: Format = Field(default_factory=Format)
    output: Output = Field(default_factory=Output)
    partitions: Annotated[int, Field(ge=1, le=1024)] = 4
    max_document_bytes: Annotated[int, Field(ge=1024, le=1 << 28)] = 4_194_304
    submitted_by: Annotated[str, Field(max_length=200)] | None = None
    purpose: Annotated[str, Field(max_length=2000)] | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _name_is_text(cls, value: str) -> str:
        if not value.strip() or any(ord(char) < 0x20 for char in value):  # noqa: PLR2004 - C0 controls
            raise ValueError("a name needs a visible character and no control characters")
        return value

    @model_validator(mode="after")
    def _searches_where_it_can(self) -> Self:
        if self.query.text is None:
            return self
        if self.source.type != "uds3":
            raise ValueError(
                f"query.text: the source '{self.source.type}' cannot search; leave it out or null"
            )
        if not self.query.text.strip():
            raise ValueError("query.text: a search needs a word; leave it out or null to read everything")
        if not self.query.shares:
            raise ValueError("query.weights: none of the search types asked for has a weight above 0")
        return self

    @property
    def source_label(self) -> str:
        """The field `source` of a row: Clara's name for UDS3, else the source's type."""
        return "uds3_search" if self.source.type == "uds3" else self.source.type

    @property
    def relevance_decimals(self) -> int:
        """Decimals of a row's relevance: Clara's raw fused scores are small, and keep 6."""
        searches = self.query.text is not None
        return 6 if searches and self.quality.relevance == "raw" else 4

    @property
    def digest(self) -> str:
        """Sha256 of what decides the dataset: the id and who asked for it, and why, do not."""
        body = self.model_dump(mode="json", exclude={"job_id", "submitted_by", "purpose", "labels"})
        if self.quality.relevance == "raw":
            # The field is younger than the digest: jobs without it keep theirs.
            del body["quality"]["relevance"]
        return sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def slug(self) -> str:
        """The name as one path segment: ASCII, lower case, never empty or a dot name."""
        return slugify(self.name)

    @property
    def validation_partitions(self) -> int:
        """Partitions of the validation split, numbered behind those of train; 0 without one."""
        fraction = self.output.validation_fraction
        return max(1, round(self.partitions * fraction)) if fraction > 0 else 0

    @property
    def total_partitions(self) -> int:
        """Partitions of the job's topic: train, then validation."""
        return self.partitions + self.validation_partitions

    def split_of(self, partition: int) -> str:
        """The split whose rows a partition carries."""
        return "train" if partition < self.partitions else "validation"

    def body(self) -> bytes:
        """The normalised message: defaults filled in, keys sorted. Equal bodies are the same job."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)


class Request(Model):
    """A request about a job that was submitted before, on the same topic and key."""

    version: Literal[1] = 1
    job_id: Annotated[str, Field(pattern=JOB_ID)]
    action: Literal["cancel", "retry", "delete"]
    requested_by: Annotated[str, Field(max_length=200)] | None = None

    def body(self) -> bytes:
        """The message's bytes."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)


_TRANSLITERATION = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "Ä": "ae", "Ö": "oe", "Ü": "ue"}
)


def slugify(name: str) -> str:
    """A name as a path segment: letters, digits and dashes; what has none of them becomes a hash."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.translate(_TRANSLITERATION).lower()).strip("-")[:80].rstrip("-")
    return slug or "dataset-" + sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def parse_job(body: bytes | str, *, default_id: bool = False) -> JobSpec:
    """Validate a job message.

    Args:
        body: the JSON text.
        default_id: make a job id of name and spec digest where the message has none.

    Raises:
        JobInvalid: naming each field and what is wrong with it.
    """
    value = _load_object(body)
    if default_id and value.get("job_id") is None:
        named = _validated(JobSpec, value | {"job_id": "unnamed"})
        value = value | {"job_id": f"{named.slug[:50].rstrip('-')}-{named.digest[:12]}"}
    return _validated(JobSpec, value)


def parse_message(body: bytes) -> JobSpec | Request:
    """A message of `dataset.jobs`: a request where it has an `action`, else a job.

    Raises:
        JobInvalid: naming each field and what is wrong with it.
    """
    value = _load_object(body)
    return _validated(Request, value) if "action" in value else _validated(JobSpec, value)


def _load_object(body: bytes | str) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise JobInvalid(f"the job is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise JobInvalid(f"a job is a JSON object, this is a {type(value).__name__}")
    return value


def _validated(model: type[M], value: dict[str, Any]) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise JobInvalid(
            "; ".join(_sentences(error)), hint="docs/job.schema.json describes every field"
        ) from None


def _sentences(error: ValidationError) -> list[str]:
    return [
        f"{_place(item['loc'])}: {said}" if item["loc"] else said
        for item in error.errors(include_url=False, include_context=False)
        for said in [item["msg"].removeprefix("Value error, ")]
    ]


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Where the first fault lies, with dots between the fields, and what it is; the input is not told."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return ".".join(str(part) for part in first["loc"]), str(first["msg"])


def _place(loc: tuple[int | str, ...]) -> str:
    # Behind `source` stands the type that was chosen, which is no field of the message.
    parts = (loc[0], *loc[2:]) if loc[0] == "source" and len(loc) > 1 else loc
    return ".".join(map(str, parts))
