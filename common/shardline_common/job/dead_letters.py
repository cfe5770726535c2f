"""The messages of `dataset.dead-letters`: dead letters of documents and of job messages.

The key names the place of the original, so that a repeat after a crash has the same key and counts once:
`<job>/<partition>/<sequence>` of a document, `dataset.jobs/<partition>/<offset>` of a job message.
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

    `original` is the start of the original, up to 64 KiB; None where a setting leaves it out. `sha256` and
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
    job_id: str, place: tuple[int, int], position: bytes, dead: DeadLetter, *, keep_original: bool
) -> Message:
    """The dead letter of a document; `place` is its partition and sequence, `position` JSON."""
    key = f"{job_id}/{place[0]}/{place[1]}"
    return _message(key, job_id, orjson.loads(position), dead, keep_original=keep_original)


def message_dead_letter(record: Record, reason: str, hint: str) -> Message:
    """The dead letter of a message of dataset.jobs that is refused."""
    original = record.value or b""
    digest = sha256(original).hexdigest()
    dead = DeadLetter(reason, hint, digest, len(original), original[:MAX_ORIGINAL_BYTES])
    key = f"{JOBS}/{record.partition}/{record.offset}"
    job_id = record.key.decode(errors="replace") if record.key else None
    return _message(key, job_id, [record.partition, record.offset], dead, keep_original=True)


def _message(
    key: str, job_id: str | None, position: Any, dead: DeadLetter, *, keep_original: bool
) -> Message:
    original = base64.b64encode(dead.original[:MAX_ORIGINAL_BYTES]).decode() if keep_original else None
    value = {
        "job_id": job_id,
        "reason": dead.reason,
        "hint": dead.hint,
        "position": position,
        "sha256": dead.sha256,
        "size": dead.size,
        "original_base64": original,
    }
    return Message(key.encode(), orjson.dumps(value))
