"""The field mapping of a job over files, as its message has it."""

from typing import Annotated

from pydantic import Field, field_validator

from shardline_common.job.field_mapping import is_template, parse_reference, parse_template
from shardline_common.job.spec_model import Model


class FieldMapping(Model):
    """Which fields of a document are its id, its text and its score. All others are metadata.

    A field is a name at the top, or a JSON pointer (RFC 6901) that begins with `/`.
    """

    id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            description="The field of the id. `hash` makes ids of the text (BLAKE2b-128), `line` of the "
            "file's name and the line; a field of that name is `/hash` or `/line`.",
            examples=["uid"],
        ),
    ] = "document_id"
    text: Annotated[
        str,
        Field(
            min_length=1,
            max_length=10_000,
            description="The field of the text, or a template of several fields in double braces. A document "
            "that lacks one of them is the dead letter `missing_field`.",
            examples=["{{title}}\n\n{{/body/text}}"],
        ),
    ] = "content"
    score: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            description="The field of the relevance of a document. What is no number counts as 0.0, and "
            "stays in the metadata.",
            examples=["/rating/value"],
        ),
    ] = "score"

    @field_validator("id", "score")
    @classmethod
    def _is_a_field(cls, value: str) -> str:
        parse_reference(value)
        return value

    @field_validator("text")
    @classmethod
    def _is_a_field_or_a_template(cls, value: str) -> str:
        if is_template(value):
            parse_template(value)
        else:
            parse_reference(value)
        return value
