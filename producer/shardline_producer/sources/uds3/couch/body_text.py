"""What of a CouchDB document is its text: a field, else an attachment."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from shardline_producer.sources.documents import ORIGINAL_BYTES, DeadLetterReason
from shardline_producer.sources.uds3.store_ports import Body, Unreadable
from shardline_producer.sources.uds3.tombstones import is_deleted

_FIELDS = ("content", "text")
_BYTES = ("application/octet-stream", "binary/octet-stream")
_PDF = b"%PDF-"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a document; its type may name a character set."""

    name: str
    type: str
    charset: str


def is_gone(document: Mapping[str, Any], *, include_archived: bool) -> bool:
    """Whether the document, or its metadata, bears a mark of deletion."""
    metadata = document.get("metadata")
    marked = [document, metadata if isinstance(metadata, Mapping) else {}]
    return any(is_deleted(fields, include_archived=include_archived) for fields in marked)


def text_of(document: Mapping[str, Any], longest: int) -> str | Unreadable | None:
    """The text in a field; None where there is none and an attachment may have it."""
    values = [document.get(name) for name in _FIELDS]
    texts = [value for value in values if isinstance(value, str)]
    if text := next(filter(None, texts), ""):
        return text if fits(text, longest) else too_large(text[:ORIGINAL_BYTES].encode(errors="replace"))
    if document.get("_attachments"):
        return None
    if any(value is not None and not isinstance(value, str) for value in values):
        return Unreadable(DeadLetterReason.CONTENT_NOT_TEXT)
    return texts[0] if texts else None


def fits(text: str, longest: int) -> bool:
    """Whether a text has at most that many bytes."""
    return len(text) <= longest and (
        len(text) * 4 <= longest or len(text.encode(errors="replace")) <= longest
    )


def too_large(start: bytes) -> Unreadable:
    """A body over the limit, of which that is the start."""
    return Unreadable(DeadLetterReason.TOO_LARGE, start[:ORIGINAL_BYTES])


def attachment_of(document: Mapping[str, Any]) -> Attachment | Unreadable | None:
    """The file that holds the text: text before bytes, then by name. Files of other types have none."""
    stubs = document.get("_attachments") or {}
    files = [_attachment(name, stub) for name, stub in sorted(stubs.items())]
    for suits in (_is_text, _is_bytes):
        if chosen := [file for file in files if suits(file)]:
            return chosen[0]
    return Unreadable(DeadLetterReason.NO_TEXT) if files else None


def decoded(file: Attachment, data: bytes) -> str | Unreadable:
    """The text of a file's bytes; bytes without a type are text only as UTF-8."""
    start = data[:ORIGINAL_BYTES]
    if data.startswith(_PDF):
        return Unreadable(DeadLetterReason.NO_TEXT, start)
    try:
        return data.decode(file.charset)
    except UnicodeDecodeError:
        return Unreadable(
            DeadLetterReason.INVALID_UTF8 if _is_text(file) else DeadLetterReason.NO_TEXT, start
        )


def known_beside(document: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a document: its `metadata`, and its other fields where that does not name them."""
    own = {key: value for key, value in document.items() if not key.startswith("_")}
    metadata = own.pop("metadata", None)
    for name in (*_FIELDS, "document_id"):
        own.pop(name, None)
    inner = dict(metadata) if isinstance(metadata, Mapping) else {}
    inner.pop("document_id", None)
    return own | inner


def names_in(refs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The (database, document) pairs of couchdb_refs, {db: {doc_id}} or {db: doc_id}, by database."""
    pairs = []
    for database, value in sorted(refs.items()):
        name = value.get("doc_id") or value.get("_id") if isinstance(value, Mapping) else value
        if isinstance(name, str) and name:
            pairs.append((database, name))
    return pairs


def _attachment(name: str, stub: Mapping[str, Any]) -> Attachment:
    header = Message()
    header["Content-Type"] = str(stub.get("content_type") or _BYTES[0])
    charset = header.get_content_charset() or "utf-8"
    try:
        # The mark of UTF-8 at a file's start is no part of its text.
        charset = "utf-8-sig" if codecs.lookup(charset).name == "utf-8" else charset
    except LookupError:
        charset = "utf-8-sig"
    kind = str(stub.get("content_type") or _BYTES[0]).partition(";")[0].strip().lower()
    return Attachment(name, kind, charset)


def _is_text(file: Attachment) -> bool:
    return file.type.startswith("text/")


def _is_bytes(file: Attachment) -> bool:
    return file.type in _BYTES


def body(document: Mapping[str, Any], text: str | Unreadable) -> Body | Unreadable:
    """The body of a document whose text was found."""
    return text if isinstance(text, Unreadable) else Body(text, known_beside(document))
