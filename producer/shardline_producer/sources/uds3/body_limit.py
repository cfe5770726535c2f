"""The size limit of a body, `max_document_bytes`."""

from shardline_common.job.messages import MAX_ORIGINAL_BYTES
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.uds3.store_ports import InvalidBody


def limited(text: str, max_bytes: int) -> str | InvalidBody:
    """The text, or an invalid body if it has more than `max_bytes` bytes in UTF-8."""
    # A character has 1 to 4 bytes in UTF-8, so most texts need no encoding.
    if len(text) * 4 <= max_bytes:
        return text
    if len(text) <= max_bytes and len(text.encode(errors="replace")) <= max_bytes:
        return text
    return too_large(text[:MAX_ORIGINAL_BYTES].encode(errors="replace"))


def too_large(start: bytes) -> InvalidBody:
    """A body that exceeds the limit and begins with `start`."""
    return InvalidBody(DeadLetterReason.TOO_LARGE, start[:MAX_ORIGINAL_BYTES])
