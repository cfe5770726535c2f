"""The parts of a job message. docs/job.md is made from each field's description and example."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from shardline_common.job.field_mapping import check_flatten, is_template, parse_reference
from shardline_common.job.spec_csv import CsvOptions
from shardline_common.job.spec_mapping import FieldMapping
from shardline_common.job.spec_model import Model
from shardline_common.job.text_encodings import canonical_encoding

MAX_COUNT = 1 << 53
ColumnType = Literal["string", "int", "float", "bool"]
SCALAR = str | int | float | bool | None


FileForm = Literal["jsonl", "json", "csv", "text", "parquet", "arrow"]


class FilesSource(Model):
    """Files on a local disk or on S3: JSON, CSV, text and tables, plain or compressed."""

    type: Annotated[Literal["files"], Field(description="Reads files.", examples=["files"])]
    paths: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(
            min_length=1,
            max_length=10_000,
            description="Files, folders and glob patterns, local or `s3://`; a folder on S3 ends with `/`. "
            "They are read in this order, the files of a folder or pattern by name, and each file once. A "
            "name that exists is no pattern.",
            examples=[["laws/*.jsonl.zst", "s3://bucket/in/2026.jsonl"]],
        ),
    ]
    allow_empty: Annotated[
        bool,
        Field(
            description="Whether a file that its name calls compressed has no rows when it holds no "
            "compressed data at all, such as one of 0 bytes. False fails the job, because such a file was "
            "hardly written on purpose.",
            examples=[True],
        ),
    ] = False
    fields: Annotated[
        FieldMapping,
        Field(
            description="The fields of id, text and score, where they have other names.",
            examples=[{"id": "uid", "text": "/body/text"}],
        ),
    ] = Field(default_factory=FieldMapping)
    flatten: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1024)]],
        Field(
            max_length=1_000,
            description="JSON pointers of nested values that become metadata fields of their own, which can "
            "be columns. Each is named by its last part.",
            examples=[["/meta/author"]],
        ),
    ] = Field(default_factory=list)

    format: Annotated[
        FileForm | None,
        Field(
            description="The form of all files of the job. Null finds the form of each file in its first "
            "bytes and its name.",
            examples=["jsonl"],
        ),
    ] = None
    encoding: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=50,
            description="The encoding of the files that are not UTF-8 and have no byte order mark of UTF-8, "
            "UTF-16 or UTF-32, as Python names it. Null is UTF-8, and a file in another encoding fails the "
            "job.",
            examples=["cp1252"],
        ),
    ] = None
    csv: Annotated[
        CsvOptions | None,
        Field(
            description="How CSV and TSV files are written, where that is not found by itself.",
            examples=[{"delimiter": ";", "header": ["document_id", "content"]}],
        ),
    ] = None

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, value: str | None) -> str | None:
        if value is not None:
            canonical_encoding(value)
        return value

    @field_validator("flatten")
    @classmethod
    def _has_nested_fields(cls, value: list[str], info: ValidationInfo) -> list[str]:
        # `fields` is missing when it is invalid itself.
        fields = info.data.get("fields") or FieldMapping()
        names = (fields.id, fields.text, fields.score)
        check_flatten(value, [parse_reference(name) for name in names if not is_template(name)])
        return value


class Uds3Source(Model):
    """The stores of UDS3 that the producer's settings name: a scan of PostgreSQL, or a search."""

    type: Annotated[Literal["uds3"], Field(description="Reads UDS3.", examples=["uds3"])]
    degrade: Annotated[
        bool,
        Field(
            description="Whether a job continues without a store that is down, and without that store's "
            "marks of deletion. The manifest names the store.",
            examples=[True],
        ),
    ] = False
    hops: Annotated[
        int,
        Field(
            ge=0,
            le=3,
            description="How many edges a graph search follows from each hit to further documents.",
            examples=[1],
        ),
    ] = 0


class ThemisSource(Model):
    """The rows of a table of ThemisDB, in the order of its key column."""

    type: Annotated[Literal["themis"], Field(description="Reads ThemisDB.", examples=["themis"])]
    table: Annotated[
        str,
        Field(min_length=1, description="The table whose rows are the documents.", examples=["judgments"]),
    ] = "documents"
    key: Annotated[
        str,
        Field(
            min_length=1,
            description="The column that holds the document id. It needs a range index.",
            examples=["judgment_id"],
        ),
    ] = "doc_id"
    theme: Annotated[
        str | None, Field(description="Keeps rows whose `category` is this text.", examples=["bauen"])
    ] = None
    domain: Annotated[
        str | None,
        Field(description="Keeps rows whose `domain` is this text.", examples=["verwaltungsrecht"]),
    ] = None
    subject: Annotated[
        str | None, Field(description="Keeps rows whose `subject` is this text.", examples=["Dachausbau"])
    ] = None
    from_date: Annotated[
        str | None,
        Field(description="Keeps rows whose `created_at` is this text or later.", examples=["2020-01-01"]),
    ] = None
    to_date: Annotated[
        str | None,
        Field(
            description="Keeps rows whose `created_at` is this text or earlier. A day includes all its "
            "hours.",
            examples=["2025-12-31"],
        ),
    ] = None
    lossless: Annotated[
        bool | None,
        Field(
            description="True reads each row alone, as it was stored. False reads many rows in one response, "
            "without objects and lists, and with numbers cut to 6 digits. Null means true, and "
            "fails the job at planning when that would take over an hour.",
            examples=[True],
        ),
    ] = None


AnySource = Annotated[FilesSource | Uds3Source | ThemisSource, Field(discriminator="type")]


class Range(Model):
    """An inclusive range of a filter. At least one of its bounds is set."""

    gte: Annotated[
        SCALAR, Field(description="The lowest value that passes; null is no bound.", examples=["2020-01-01"])
    ] = None
    lte: Annotated[
        SCALAR,
        Field(
            description="The highest value that passes; null is no bound. A day includes all its hours.",
            examples=["2024-12-31"],
        ),
    ] = None

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
    """Which documents to read from the source."""

    text: Annotated[
        Annotated[str, Field(max_length=10_000)] | None,
        Field(
            description="The text to search for; only UDS3 searches. Null reads every document that passes "
            "the filters, in a stable order.",
            examples=["Baurecht Dachanlage"],
        ),
    ] = None
    top_k: Annotated[
        Annotated[int, Field(ge=1, le=MAX_COUNT)] | None,
        Field(
            description="How many documents to read at most, counted before the quality filter. Null reads "
            "all.",
            examples=[5000],
        ),
    ] = None
    filters: Annotated[
        dict[str, SCALAR | list[SCALAR] | Range],
        Field(
            description="A document passes when each named field equals the value, equals one of the listed "
            "values, or lies in the range. A field that the source does not have fails the job at planning.",
            examples=[{"domain": ["baurecht", "verwaltungsrecht"], "created_at": {"gte": "2020-01-01"}}],
        ),
    ] = Field(default_factory=dict)
    search_types: Annotated[
        list[SearchType],
        Field(
            description="The searches to make; their results are fused by rank. `relational` is another "
            "name of `keyword`.",
            examples=[["vector", "keyword"]],
        ),
    ] = Field(default_factory=lambda: list(_SEARCHES))
    weights: Annotated[
        dict[SearchType, Annotated[float, Field(ge=0)]],
        Field(
            description="The weight of each search in the fusion, normalised over all keys given. A search "
            "without a weight above 0 is skipped.",
            examples=[{"vector": 0.7, "keyword": 0.3}],
        ),
    ] = Field(default_factory=lambda: dict(_WEIGHTS))

    @field_validator("search_types", mode="before")
    @classmethod
    def _replace_aliases(cls, value: Any) -> Any:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            return value
        return list(dict.fromkeys(_ALIASES.get(name, name) for name in value))

    @field_validator("weights", mode="before")
    @classmethod
    def _replace_aliases_of_weights(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {_ALIASES.get(name, name): weight for name, weight in value.items()}

    @property
    def shares(self) -> dict[SearchType, float]:
        """The weight of each requested search that has one above 0: its share of the sum of all weights."""
        total = sum(self.weights.values())
        requested = {name: self.weights.get(name, 0.0) for name in self.search_types}
        return {name: weight / total for name, weight in requested.items() if weight > 0}


class Quality(Model):
    """Which documents become rows, and how many may be unusable."""

    min_score: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The lowest quality score that is kept; the score is rounded to 4 decimals first.",
            examples=[0.6],
        ),
    ] = 0.5
    relevance: Annotated[
        Literal["raw", "normalized"],
        Field(
            description="The relevance of a search: `raw` is Clara's fused rank score, at most 1/61 for "
            "one list; `normalized` is 1 for a document that is first in every list.",
            examples=["normalized"],
        ),
    ] = "raw"
    keep_rejected: Annotated[
        bool | Literal["reasons", "full"],
        Field(
            description="Whether `rejected/` lists each rejected document: true, or `reasons`, with its "
            "reason and scores; `full` with its text as well.",
            examples=["full"],
        ),
    ] = False
    max_dead_letters: Annotated[
        Annotated[int, Field(ge=0, le=MAX_COUNT)] | None,
        Field(
            description="How many dead letters the job may have; one more fails it. Null is no limit.",
            examples=[100],
        ),
    ] = None
    max_dead_letter_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The share of documents that may be dead letters, judged at the end of the source, "
            "when there are more than 10. A job of which all documents are dead letters always fails.",
            examples=[0.02],
        ),
    ] = 0.1
    max_vanished: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_COUNT,
            description="How many planned documents may be removed or marked deleted before they are read. A "
            "job with more of them, and with a larger share than `max_vanished_ratio`, fails with "
            "`source_changed` at the end of the source.",
            examples=[100],
        ),
    ] = 10
    max_vanished_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The share of the planned documents that may be removed or marked deleted before "
            "they are read; see `max_vanished`. 1 allows all.",
            examples=[0.01],
        ),
    ] = 0.1

    @field_validator("keep_rejected", mode="before")
    @classmethod
    def _reasons_is_true(cls, value: Any) -> Any:
        # One body and one digest for one job. Version 0.1 knows true only.
        return True if value == "reasons" else value


class Format(Model):
    """The shape of a row."""

    type: Annotated[
        Literal["text"],
        Field(description="Clara's training line, with the text as one field.", examples=["text"]),
    ] = "text"
    metadata: Annotated[
        list[Annotated[str, Field(min_length=1)]] | dict[str, ColumnType] | None,
        Field(
            description="The columns of `metadata`, as names or as names with types (`string`, `int`, "
            "`float`, `bool`); all other fields go into `metadata.extra`. Null finds the "
            "columns in the first documents.",
            examples=[{"title": "string", "pages": "int"}],
        ),
    ] = None
    max_columns: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="How many columns may be found. With more fields, only those that one of 100 "
            "documents has become columns, the most frequent first; the others go into `metadata.extra`.",
            examples=[64],
        ),
    ] = 256

    @field_validator("metadata")
    @classmethod
    def _no_reserved_column(cls, value: Any) -> Any:
        if value is not None and "extra" in value:
            raise ValueError("'extra' is reserved for the fields that have no column; leave it out")
        if isinstance(value, list) and len(set(value)) != len(value):
            raise ValueError("a column is named twice")
        return value


class Output(Model):
    """How shards are cut and stored."""

    compression: Annotated[
        Literal["none", "gzip", "zstd"],
        Field(
            description="The compression of shards. Hugging Face datasets cannot stream compressed ones from "
            "`s3://`.",
            examples=["zstd"],
        ),
    ] = "none"
    shard_bytes: Annotated[
        int,
        Field(
            ge=1024,
            le=1 << 32,
            description="A shard closes after the row at which its uncompressed rows reach so many bytes.",
            examples=[8_388_608],
        ),
    ] = 67_108_864
    validation_fraction: Annotated[
        float,
        Field(
            ge=0,
            le=0.9,
            description="The share of documents that go into the validation split, chosen by a hash.",
            examples=[0.05],
        ),
    ] = 0.0
    group_by: Annotated[
        str | None,
        Field(
            description="The field whose value decides the split: documents with the same value are in the "
            "same split. Null takes the document id.",
            examples=["case_number"],
        ),
    ] = None
