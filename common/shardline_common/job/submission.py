"""Who submitted a job and when, in a header of its message on dataset.jobs.

It is no part of the job: the same job of another user is the same dataset. Whoever may write to dataset.jobs
may write the header too, and may cancel any job there; Kafka's ACLs decide who that is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

SUBMISSION_HEADER = "submission"
_MAX_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Owner:
    """The user who owns a dataset: the subject of a token, which only its issuer makes unique.

    `issuer` None: the user of a gateway that requires no token.
    """

    subject: str
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """When a job was submitted (RFC 3339; "" when that is not known), and its owner.

    `owner` None: the job was submitted to Kafka or run by the command line, and belongs to admins.
    """

    submitted_at: str = ""
    owner: Owner | None = None

    def to_json(self) -> dict[str, str]:
        """The fields that have a value."""
        values = {
            "submitted_at": self.submitted_at,
            "owner": self.owner.subject if self.owner else None,
            "owner_issuer": self.owner.issuer if self.owner else None,
        }
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_json(cls, value: Any) -> "Submission":
        """The submission of `to_json`. A field that is absent or not of its kind is left out."""
        found = value if isinstance(value, dict) else {}
        subject, issuer = _text(found.get("owner")), _text(found.get("owner_issuer"))
        return cls(_time(found.get("submitted_at")), Owner(subject, issuer) if subject else None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_CHARS else None


def _time(value: object) -> str:
    text = _text(value)
    if text is None:
        return ""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return text if found.tzinfo is not None else ""


def submission_headers(submission: Submission) -> tuple[tuple[str, bytes], ...]:
    """The headers of the message that submits the job."""
    return ((SUBMISSION_HEADER, orjson.dumps(submission.to_json())),)


def submission_of(headers: Iterable[tuple[str, bytes | None]]) -> Submission:
    """The submission in the headers of a message; an empty one when there is none that can be read."""
    for name, value in headers:
        if name == SUBMISSION_HEADER:
            try:
                return Submission.from_json(orjson.loads(value or b""))
            except orjson.JSONDecodeError:
                return Submission()
    return Submission()
