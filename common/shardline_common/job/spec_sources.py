"""The sources of a job message. docs/job.md is made from each field's description and example."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from shardline_common.job.field_mapping import check_flatten, is_template, parse_reference
from shardline_common.job.spec_csv import CsvOptions
from shardline_common.job.spec_mapping import FieldMapping
from shardline_common.job.spec_model import Model
from shardline_common.job.text_encodings import canonical_encoding

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
