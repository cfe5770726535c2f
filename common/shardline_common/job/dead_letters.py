"""The messages of `dataset.dead-letters`: dead letters of documents and of job messages.

The key names the original, so a repeat after a crash has the same key and counts once:
`<job>/<partition>/<sequence>` for a document, `dataset.jobs/<partition>/<offset>` for a job message.
"""

import base64
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from shardline_common.job.messages import MAX_ORIGINAL_BYTES, DeadLetter
from shardline_common.job.names import JOBS
from shardline_common.ports.broker import Message, Record


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A dead letter as read from the topic.

    `original` is the start of the original, up to 64 KiB; None when a setting leaves it out. `sha256` and
    `size` are those of the whole original.
    """

    key: str
    job_id: str | None
    reason: str
    hint: str
    position: Any
    sha256: str
    size: int
    original: bytes | None

    @classmethod
    def decode(cls, record: Record) -> "DeadLetterRecord":
        """The dead letter of a record with a value."""
        value = orjson.loads(record.value or b"{}")
        original = value.pop("original_base64")
        return cls(
            key=(record.key or b"").decode(),
            original=None if original is None else base64.b64decode(original),
            **value,
        )


def document_dead_letter(
    job_id: str,
    partition: int,
    sequence: int,
    position: bytes,
    dead_letter: DeadLetter,
    *,
    keep_original: bool,
) -> Message:
    """The message for a dead letter of a document. `position` is its source position as JSON."""
    key = f"{job_id}/{partition}/{sequence}"
    return _message(key, job_id, orjson.loads(position), dead_letter, keep_original=keep_original)


def message_dead_letter(record: Record, reason: str, hint: str) -> Message:
    """The message for a dead letter of a refused message of dataset.jobs."""
    original = record.value or b""
    digest = sha256(original).hexdigest()
    dead_letter = DeadLetter(reason, hint, digest, len(original), original[:MAX_ORIGINAL_BYTES])
    key = f"{JOBS}/{record.partition}/{record.offset}"
    job_id = record.key.decode(errors="replace") if record.key else None
    return _message(key, job_id, [record.partition, record.offset], dead_letter, keep_original=True)


def _message(
    key: str, job_id: str | None, position: Any, dead_letter: DeadLetter, *, keep_original: bool
) -> Message:
    original = None
    if keep_original:
        original = base64.b64encode(dead_letter.original[:MAX_ORIGINAL_BYTES]).decode()
    value = {
        "job_id": job_id,
        "reason": dead_letter.reason,
        "hint": dead_letter.hint,
        "position": position,
        "sha256": dead_letter.sha256,
        "size": dead_letter.size,
        "original_base64": original,
    }
    return Message(key.encode(), orjson.dumps(value))
