"""The text and the metadata of a CouchDB document. Pure. The text is in a field, else in an attachment."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from shardline_common.job.messages import MAX_ORIGINAL_BYTES
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.uds3.body_limit import limited
from shardline_producer.sources.uds3.store_ports import DocumentBody, InvalidBody
from shardline_producer.sources.uds3.tombstones import is_deleted

_TEXT_FIELDS = ("content", "text")
_BYTE_TYPES = ("application/octet-stream", "binary/octet-stream")
_PDF = b"%PDF-"


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment of a document. `charset` is that of its content type, else UTF-8.

    `size` is the number of its bytes; None: the document does not say it.
    """

    name: str
    type: str
    charset: str
    size: int | None = None

    @property
    def is_text(self) -> bool:
        """Whether its type is text."""
        return self.type.startswith("text/")

    @property
    def is_bytes(self) -> bool:
        """Whether its type is the general type of bytes."""
        return self.type in _BYTE_TYPES


def is_deleted_document(document: Mapping[str, Any], *, include_archived: bool) -> bool:
    """Whether the document or its metadata has a tombstone."""
    metadata = document.get("metadata")
    marked = [document, metadata if isinstance(metadata, Mapping) else {}]
    return any(is_deleted(fields, include_archived=include_archived) for fields in marked)


def field_text(document: Mapping[str, Any], max_bytes: int) -> str | InvalidBody | None:
    """The text in a field; None if there is none, or if only an attachment may have it."""
    values = [document.get(name) for name in _TEXT_FIELDS]
    texts = [value for value in values if isinstance(value, str)]
    if text := next(filter(None, texts), ""):
        return limited(text, max_bytes)
    if document.get("_attachments"):
        return None
    if any(value is not None and not isinstance(value, str) for value in values):
        return InvalidBody(DeadLetterReason.CONTENT_NOT_TEXT)
    return texts[0] if texts else None


def text_attachment(document: Mapping[str, Any]) -> Attachment | InvalidBody | None:
    """The attachment with the text: the first of type text, else the first of type bytes, by name.

    Returns NO_TEXT if all attachments have other types, None if there is no attachment.
    """
    stubs = document.get("_attachments") or {}
    attachments = [_attachment(name, stub) for name, stub in sorted(stubs.items())]
    chosen = next((item for item in attachments if item.is_text), None)
    chosen = chosen or next((item for item in attachments if item.is_bytes), None)
    return chosen or (InvalidBody(DeadLetterReason.NO_TEXT) if attachments else None)


def _attachment(name: str, stub: Mapping[str, Any]) -> Attachment:
    content_type = str(stub.get("content_type") or _BYTE_TYPES[0])
    header = Message()
    header["Content-Type"] = content_type
    charset = header.get_content_charset() or "utf-8"
    try:
        # utf-8-sig drops a byte order mark, which is not part of the text.
        charset = "utf-8-sig" if codecs.lookup(charset).name == "utf-8" else charset
    except LookupError:
        charset = "utf-8-sig"
    length = stub.get("length")
    size = length if isinstance(length, int) else None
    return Attachment(name, content_type.partition(";")[0].strip().lower(), charset, size)


def decode_attachment(attachment: Attachment, data: bytes) -> str | InvalidBody:
    """The text of an attachment's bytes. Bytes without a type are text only if they are UTF-8."""
    start = data[:MAX_ORIGINAL_BYTES]
    if data.startswith(_PDF):
        return InvalidBody(DeadLetterReason.NO_TEXT, start)
    try:
        return data.decode(attachment.charset)
    except UnicodeDecodeError:
        is_text = attachment.is_text
        return InvalidBody(DeadLetterReason.INVALID_UTF8 if is_text else DeadLetterReason.NO_TEXT, start)


def body_of(document: Mapping[str, Any], text: str | InvalidBody) -> DocumentBody | InvalidBody:
    """The body of a document with this text.

    Its metadata are the fields of `metadata`, and the document's other fields unless `metadata` has them.
    """
    if isinstance(text, InvalidBody):
        return text
    fields = {key: value for key, value in document.items() if not key.startswith("_")}
    metadata = fields.pop("metadata", None)
    for name in (*_TEXT_FIELDS, "document_id"):
        fields.pop(name, None)
    inner = dict(metadata) if isinstance(metadata, Mapping) else {}
    inner.pop("document_id", None)
    return DocumentBody(text, fields | inner)


def references(refs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The (database, CouchDB id) pairs of couchdb_refs, {db: {doc_id}} or {db: doc_id}, by database."""
    pairs = []
    for database, value in sorted(refs.items()):
        couch_id = value.get("doc_id") or value.get("_id") if isinstance(value, Mapping) else value
        if isinstance(couch_id, str) and couch_id:
            pairs.append((database, couch_id))
    return pairs
