"""The options of CSV and TSV in a job message. docs/job.md is made from each description and example."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from shardline_common.job.spec_model import Model


class CsvOptions(Model):
    """How CSV and TSV files are written. What is null is found in the first rows of each file."""

    delimiter: Annotated[
        Annotated[str, Field(pattern=r"^[\x01-\x7f]$")] | None,
        Field(
            description="The character between two cells. Null finds a comma, semicolon, tab or bar.",
            examples=[";"],
        ),
    ] = None
    quote: Annotated[
        Annotated[str, Field(pattern=r"^[\x01-\x7f]?$")] | None,
        Field(
            description="The character around cells that hold a delimiter or a line end. An empty text: "
            "there is none.",
            examples=[""],
        ),
    ] = None
    escape: Annotated[
        Literal["double", "backslash"] | None,
        Field(
            description="How a quote is written within a quoted cell: doubled, or behind a backslash. "
            "`backslash` takes every character behind one as it is, and `\\N` as null.",
            examples=["backslash"],
        ),
    ] = None
    header: Annotated[
        Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=10_000)] | None,
        Field(
            description="The names of the columns of files without a header. A first row with these very "
            "names is no data.",
            examples=[["document_id", "content"]],
        ),
    ] = None

    @field_validator("delimiter", "quote")
    @classmethod
    def _is_no_line_end(cls, value: str | None) -> str | None:
        if value is not None and value in ("\r", "\n", "\\"):
            raise ValueError("neither a line end nor a backslash can separate or quote cells")
        return value

    @field_validator("header")
    @classmethod
    def _has_no_name_twice(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("each column needs a name of its own")
        return value

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.delimiter is not None and self.delimiter == self.quote:
            raise ValueError("delimiter and quote must differ")
        return self
