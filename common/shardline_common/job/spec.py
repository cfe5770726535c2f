"""The job message and the requests on `dataset.jobs` (contract: job message, version 1)."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal, Self, TypeVar

import orjson
from pydantic import Field, ValidationError, field_validator, model_validator

from shardline_common.errors import JobInvalid
from shardline_common.job.field_faults import find_faults
from shardline_common.job.filters import check_filters
from shardline_common.job.spec_assembly import (
    Dedup,
    Near,
    Sample,
    SeededOrder,
    Shards,
    Splits,
    assembly_faults,
    assembly_fields,
)
from shardline_common.job.spec_csv import CsvOptions
from shardline_common.job.spec_fields import (
    SCALAR,
    ColumnType,
    Format,
    Output,
    Quality,
    Query,
    Range,
    SearchType,
)
from shardline_common.job.spec_filters import FilterUse
from shardline_common.job.spec_mapping import FieldMapping
from shardline_common.job.spec_model import Model
from shardline_common.job.spec_pii import Pii, also_an_action
from shardline_common.job.spec_request import JOB_ID, Request
from shardline_common.job.spec_sources import AnySource, FilesSource, ThemisSource, Uds3Source

__all__ = [
    "JOB_ID",
    "SCALAR",
    "SCHEMA_HINT",
    "AnySource",
    "ColumnType",
    "CsvOptions",
    "Dedup",
    "FieldMapping",
    "FilesSource",
    "FilterUse",
    "Format",
    "JobSpec",
    "Model",
    "Near",
    "Output",
    "Pii",
    "Quality",
    "Query",
    "Range",
    "Request",
    "Sample",
    "SearchType",
    "SeededOrder",
    "Shards",
    "Splits",
    "ThemisSource",
    "Uds3Source",
    "default_job_id",
    "parse_job",
    "parse_message",
    "slugify",
]

SCHEMA_HINT = "`shardline job --schema` describes every field"
_MAX_PARTITIONS = 4096
M = TypeVar("M", bound=Model)


class JobSpec(Model):
    """A dataset job. The same spec over the same content gives the same dataset digest."""

    version: Annotated[Literal[1], Field(description="The version of this message format.", examples=[1])] = 1
    job_id: Annotated[
        str,
        Field(
            pattern=JOB_ID,
            description="The permanent id of the job. The same message again is the same job; a different "
            "message with this id is refused. `run` and `submit` make the id from `name` and the spec "
            "digest when it is left out, so that a changed job gets another id. `run --replace` deletes the "
            "dataset of the job that had the id.",
            examples=["baurecht-2026-11"],
        ),
    ]
    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            description="The name of the dataset. Its folder is this name in lower case, with dashes.",
            examples=["baurecht"],
        ),
    ]
    source: Annotated[
        AnySource, Field(description="Where the documents are read.", examples=[{"type": "uds3"}])
    ]
    query: Annotated[Query, Field(description="Which documents are read.", examples=[{"top_k": 5000}])] = (
        Field(default_factory=Query)
    )
    quality: Annotated[
        Quality, Field(description="Which documents become rows.", examples=[{"min_score": 0.6}])
    ] = Field(default_factory=Quality)
    format: Annotated[
        Format, Field(description="What a row looks like.", examples=[{"metadata": ["title", "domain"]}])
    ] = Field(default_factory=Format)
    output: Annotated[
        Output,
        Field(
            description="How the shards are cut, compressed and split.", examples=[{"compression": "zstd"}]
        ),
    ] = Field(default_factory=Output)
    dedup: Annotated[
        Dedup | None,
        Field(
            description="Which documents are dropped as duplicates of others. Null drops none.",
            examples=[{"exact": True}],
        ),
    ] = None
    sample: Annotated[
        Sample | None,
        Field(
            description="Keeps a part of the rows. Null keeps all.", examples=[{"rows": 10_000, "seed": 7}]
        ),
    ] = None
    pii: Annotated[
        Pii | None,
        Field(
            description="What happens to personal data, such as e-mail addresses and IBANs. Null looks for "
            "none.",
            examples=["redact"],
            json_schema_extra=also_an_action,
        ),
    ] = None
    partitions: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            description="How many partitions the train split has; each has at least one shard unless it is "
            "empty, and one worker at a time.",
            examples=[16],
        ),
    ] = 4
    slices: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Into how many ranges the source is cut, which several producers read at the same "
            "time. Each slice has `partitions` partitions of its own.",
            examples=[4],
        ),
    ] = 1
    max_document_bytes: Annotated[
        int,
        Field(
            ge=1024,
            le=1 << 28,
            description="The largest line, text or row in bytes; a larger one is the dead letter "
            "`too_large`.",
            examples=[16_777_216],
        ),
    ] = 4_194_304
    dead_letter_originals: Annotated[
        bool,
        Field(
            description="Whether the dead letters in the dataset keep the original bytes, cut at 64 KiB. "
            "Left out, it is false where `SHARDLINE_DEAD_LETTER_ORIGINALS` is false.",
            examples=[False],
        ),
    ] = True
    submitted_by: Annotated[
        Annotated[str, Field(max_length=200)] | None,
        Field(description="Who asked for the dataset; on the card, not in the digest.", examples=["m.huber"]),
    ] = None
    purpose: Annotated[
        Annotated[str, Field(max_length=2000)] | None,
        Field(
            description="What the dataset is for; on the card, not in the digest.",
            examples=["LoRA adapter for building law"],
        ),
    ] = None
    labels: Annotated[
        dict[str, str],
        Field(
            description="Free names and values; on the card, not in the digest.",
            examples=[{"team": "legal"}],
        ),
    ] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _name_is_text(cls, value: str) -> str:
        if not value.strip() or any(ord(char) < 0x20 for char in value):  # noqa: PLR2004 - C0 controls
            raise ValueError("a name needs a visible character and no control characters")
        return value

    @field_validator("dedup")
    @classmethod
    def _dedup_of_nothing_is_null(cls, value: Dedup | None) -> Dedup | None:
        # One body and one digest for one job.
        return None if value == Dedup() else value

    @model_validator(mode="after")
    def _check_assembly(self) -> Self:
        if faults := list(assembly_faults(self)):
            raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _check_partitions(self) -> Self:
        if self.total_partitions > _MAX_PARTITIONS:
            raise ValueError(
                f"slices: {self.slices} slices of {self.slice_partitions} partitions are "
                f"{self.total_partitions:,} partitions of one topic, at most {_MAX_PARTITIONS:,} are allowed"
            )
        return self

    @model_validator(mode="after")
    def _check_search(self) -> Self:
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
    def redacts(self) -> bool:
        """Whether personal data is replaced, so that nothing of the job may keep a value as it was."""
        return self.pii is not None and self.pii.action == "redact"

    @property
    def source_label(self) -> str:
        """The field `source` of a row: Clara's name for UDS3, else the source's type."""
        return "uds3_search" if self.source.type == "uds3" else self.source.type

    @property
    def relevance_decimals(self) -> int:
        """Decimals of a row's relevance: 6 for Clara's raw fused scores, which are small, else 4."""
        searches = self.query.text is not None
        return 6 if searches and self.quality.relevance == "raw" else 4

    @property
    def digest(self) -> str:
        """The sha256 of the fields that decide the dataset, in hexadecimal.

        `job_id`, `submitted_by`, `purpose` and `labels` are left out, and every later field than those of
        version 0.1 while it is at its default (`Model`).
        """
        body = self.model_dump(mode="json", exclude={"job_id", "submitted_by", "purpose", "labels"})
        if self.quality.relevance == "raw":
            # Version 0.1 has this field in every dump, but digests existed before it. Left out at its
            # default, it changes none of them.
            del body["quality"]["relevance"]
        return sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def slug(self) -> str:
        """The name as one path segment: ASCII, lower case, never empty or a dot name."""
        return slugify(self.name)

    @property
    def assembled(self) -> bool:
        """Whether the dataset is assembled when all documents have landed."""
        return self.output.layout == "assembled" or (
            self.output.layout is None and bool(assembly_fields(self))
        )

    @property
    def splits(self) -> tuple[tuple[str, float], ...]:
        """The splits of an assembled dataset with their shares, as they divide the range of the hash."""
        share = self.output.validation_fraction
        if self.output.splits is not None:
            return self.output.splits.fractions
        return (("validation", share), ("train", 1 - share)) if share > 0 else (("train", 1.0),)

    @property
    def sends_groups(self) -> bool:
        """Whether documents travel with the hash of their group, which decides their split."""
        return self.assembled and self.output.group_by is not None and len(self.splits) > 1

    @property
    def order_seed(self) -> int | None:
        """The seed of the global order of an assembled dataset; None: the order of the source."""
        order = self.output.order
        return None if order == "source" else order.seed if order is not None else 0

    @property
    def near(self) -> Near | None:
        """How near duplicates are found, to remove them or to keep them in one split; None: they are not."""
        if self.dedup is not None and self.dedup.near:
            return Near() if self.dedup.near is True else self.dedup.near
        splits = self.output.splits
        return Near() if splits is not None and splits.leak == "near" else None

    @property
    def validation_partitions(self) -> int:
        """Partitions of the validation split in each slice, numbered behind those of train; 0 without one.

        An assembled job has none: its splits are made when all documents have landed.
        """
        fraction = 0.0 if self.assembled else self.output.validation_fraction
        return max(1, round(self.partitions * fraction)) if fraction > 0 else 0

    @property
    def slice_partitions(self) -> int:
        """Partitions of one slice: train, then validation."""
        return self.partitions + self.validation_partitions

    @property
    def total_partitions(self) -> int:
        """Partitions of the job's topic: those of the first slice, of the second, and so on."""
        return self.slices * self.slice_partitions

    def split_of(self, partition: int) -> str:
        """The split whose rows a partition carries."""
        return "train" if partition % self.slice_partitions < self.partitions else "validation"

    def body(self) -> bytes:
        """The normalised message: defaults filled in (`Model`), keys sorted. Equal bodies are one job."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)


_TRANSLITERATION = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "Ä": "ae", "Ö": "oe", "Ü": "ue"}
)


def slugify(name: str) -> str:
    """A name as a path segment of letters, digits and dashes; a hash when the name has none of them."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.translate(_TRANSLITERATION).lower()).strip("-")[:80].rstrip("-")
    return slug or "dataset-" + sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def parse_job(
    body: bytes | str,
    *,
    default_id: bool = False,
    defaults: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> JobSpec:
    """Validate a job message.

    Args:
        body: the JSON text.
        default_id: make a job id from name and spec digest when the message has none.
        defaults: values of the fields that the message leaves out.
        strict: refuse a number, true or false that is written as a text.

    Raises:
        JobInvalid: naming each field and what is wrong with it.
    """
    value = {**(defaults or {}), **_load_object(body)}
    if default_id and value.get("job_id") is None:
        value = value | {
            "job_id": default_job_id(_validated(JobSpec, value | {"job_id": "unnamed"}, strict=strict))
        }
    return _validated(JobSpec, value, strict=strict)


def default_job_id(spec: JobSpec) -> str:
    """The id of a job without one: from name and spec digest, so the same job gets the same id."""
    return f"{spec.slug[:50].rstrip('-')}-{spec.digest[:12]}"


def parse_message(body: bytes) -> JobSpec | Request:
    """Parse a message of `dataset.jobs`: a request when it has an `action`, else a job.

    Raises:
        JobInvalid: naming each field and what is wrong with it.
    """
    value = _load_object(body)
    return _validated(Request, value) if "action" in value else _validated(JobSpec, value)


def _not_utf_8(body: bytes) -> int | None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def _load_object(body: bytes | str) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if isinstance(body, bytes) and (where := _not_utf_8(body)) is not None:
            raise JobInvalid(f"the job is not UTF-8: its byte {where:,} is {body[where]:02x}") from None
        raise JobInvalid(f"the job is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise JobInvalid(f"a job is a JSON object, this is a {type(value).__name__}")
    return value


def _validated(model: type[M], value: dict[str, Any], *, strict: bool = True) -> M:
    try:
        found = model.model_validate(value, strict=strict)
    except ValidationError as error:
        faults = find_faults(error, model, value)
        raise JobInvalid("; ".join(map(str, faults)), hint=SCHEMA_HINT) from None
    if isinstance(found, JobSpec) and (faults := check_filters(found.quality)):
        raise JobInvalid("; ".join(map(str, faults)), hint="docs/filters.md describes every filter")
    return found
