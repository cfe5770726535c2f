"""What a job does with personal data."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from shardline_common.job.spec_model import Model

PiiKind = Literal[
    "email",
    "phone",
    "iban",
    "credit_card",
    "ip",
    "tax_id",
    "social_insurance",
    "id_card",
    "licence_plate",
]


def also_an_action(schema: dict[str, Any]) -> None:
    """Add to the JSON Schema of `pii` that the action alone is enough."""
    schema["anyOf"].insert(1, {"enum": ["redact", "reject", "count"], "type": "string"})


class Pii(Model):
    """What happens to personal data in the text and the metadata of a document, except its id.

    `"redact"` alone is short for `{"action": "redact"}`. docs/personal-data.md says what is found.
    """

    action: Annotated[
        Literal["redact", "reject", "count"],
        Field(
            description="`redact` replaces it by placeholders such as `[EMAIL_1]`, before anything else sees "
            "the document; `reject` drops a document that has any, with the reason `pii.<kind>`; `count` "
            "changes nothing, and counts what the rows have.",
            examples=["redact"],
        ),
    ]
    kinds: Annotated[
        list[PiiKind] | None,
        Field(
            min_length=1,
            description="The kinds to look for. Null looks for all of them.",
            examples=[["email", "iban"]],
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _text_is_the_action(cls, value: Any) -> Any:
        return {"action": value} if isinstance(value, str) else value

    @field_validator("kinds")
    @classmethod
    def _kinds_are_a_set(cls, value: list[PiiKind] | None) -> list[PiiKind] | None:
        # One body and one digest for one job.
        return None if value is None else sorted(set(value))
