"""The marks, the text field and the metadata of a CouchDB document. Pure."""

from collections.abc import Mapping
from typing import Any

from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.exact_json import is_unicode
from shardline_producer.sources.uds3.body_limit import limited
from shardline_producer.sources.uds3.store_ports import DocumentBody, InvalidBody
from shardline_producer.sources.uds3.tombstones import is_deleted

_TEXT_FIELDS = ("content", "text")


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


def may_have_lost_its_text(document: Mapping[str, Any]) -> bool:
    """Whether a document without a text was changed since it was made: the text may have been removed."""
    revision = document.get("_rev")
    generation = revision.partition("-")[0] if isinstance(revision, str) else ""
    return generation.isdecimal() and int(generation) > 1


def body_of(document: Mapping[str, Any], text: str | InvalidBody) -> DocumentBody | InvalidBody:
    """The body of a document with this text.

    Its metadata are the fields of `metadata`, and the document's other fields unless `metadata` has them. A
    field `metadata` that is no object is one of the others.
    """
    if isinstance(text, InvalidBody):
        return text
    fields = {key: value for key, value in document.items() if not key.startswith("_")}
    metadata = fields.get("metadata")
    if metadata is None or isinstance(metadata, Mapping):
        fields.pop("metadata", None)
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
        if isinstance(couch_id, str) and couch_id and is_unicode(couch_id + database):
            pairs.append((database, couch_id))
    return pairs
