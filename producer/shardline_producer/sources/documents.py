"""From the bytes of a line to a document, or to a dead letter with its reason."""

import json
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

import orjson

from shardline_common.job.messages import MAX_ORIGINAL_BYTES, DeadLetter
from shardline_producer.sources.source import Document, InvalidDocument

_MAX_ID_BYTES = 1024
_MAX_DEPTH = 100
_MAX_SCORE = 1e300
_INT64 = 1 << 63
_FIRST_PRINTABLE = 0x20
# Whatever may be a number that orjson changes or refuses.
_LONG_NUMBER = re.compile(r"[0-9]{19}|[eE][+-]?[0-9]{3}")


class DeadLetterReason(StrEnum):
    """The reasons for which input cannot be a document; there are no others."""

    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    TOO_DEEP = "too_deep"
    MISSING_ID = "missing_id"
    BAD_ID = "bad_id"
    NO_CONTENT = "no_content"
    CONTENT_NOT_TEXT = "content_not_text"
    LONE_SURROGATE = "lone_surrogate"
    TOO_LARGE = "too_large"
    VANISHED = "vanished"
    UNREADABLE_KEY = "unreadable_key"
    NO_TEXT = "no_text"
    INCOMPLETE_TEXT = "incomplete_text"


_HINTS = {
    DeadLetterReason.INVALID_UTF8: "the line is not valid UTF-8",
    DeadLetterReason.INVALID_JSON: "the line is not valid JSON (NaN and Infinity are not)",
    DeadLetterReason.NOT_AN_OBJECT: "a document is a JSON object",
    DeadLetterReason.TOO_DEEP: f"the document is nested more than {_MAX_DEPTH} levels deep",
    DeadLetterReason.MISSING_ID: "the document has no document_id",
    DeadLetterReason.BAD_ID: f"document_id must be text of up to {_MAX_ID_BYTES} bytes without "
    "control characters",
    DeadLetterReason.NO_CONTENT: "the document has no content",
    DeadLetterReason.CONTENT_NOT_TEXT: "content must be text",
    DeadLetterReason.LONE_SURROGATE: "document_id or content holds half of a surrogate pair",
    DeadLetterReason.TOO_LARGE: "the document is larger than max_document_bytes",
    DeadLetterReason.VANISHED: "the document was removed or marked deleted after it was planned, "
    "before it was read",
    DeadLetterReason.UNREADABLE_KEY: "ThemisDB cannot return a single row whose key holds '/', '?', '#', "
    "'..', a backslash or white space; a job with source.lossless false can read it",
    DeadLetterReason.NO_TEXT: "the document's body is a file without text, such as a scanned PDF",
    DeadLetterReason.INCOMPLETE_TEXT: "a chunk of the document is missing in ChromaDB, has no text, or "
    "has no place among the others (chunk_index)",
}


class _NotADocument(Exception):
    def __init__(self, reason: DeadLetterReason) -> None:
        super().__init__(reason)
        self.reason = reason


def dead_letter(reason: DeadLetterReason, key: str, start: bytes, digest: str, size: int) -> DeadLetter:
    """The dead letter of an original of `size` bytes, whose sha256 is `digest` and which begins with `start`.

    `key` names it in the message: its id, or where it was read.
    """
    return DeadLetter(reason.value, f"{key}: {_HINTS[reason]}", digest, size, start[:MAX_ORIGINAL_BYTES])


def invalid_document(key: str, reason: DeadLetterReason, original: bytes = b"") -> InvalidDocument:
    """The InvalidDocument of input that cannot be a document; `original` is all that was read of it."""
    digest = sha256(original).hexdigest()
    return InvalidDocument(key, dead_letter(reason, key, original, digest, len(original)))


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The names of the fields with a document's id and text: of `text`, the first field that is not null."""

    identity: str = "document_id"
    text: tuple[str, ...] = ("content",)


_DEFAULT_FIELDS = FieldNames()


def parse_document(raw: bytes, key: str, names: FieldNames = _DEFAULT_FIELDS) -> Document | InvalidDocument:
    """Parse a JSON object as a document; when it cannot be one, an InvalidDocument with the key `key`."""
    try:
        return _from_fields(_parse(raw), names)
    except _NotADocument as error:
        return invalid_document(key, error.reason, raw)


def document_of(
    fields: dict[str, Any], key: str, original: bytes, names: FieldNames = _DEFAULT_FIELDS
) -> Document | InvalidDocument:
    """A document of the fields of a row, which are no JSON text; `original` is what was read of it.

    The fields become the metadata: the dict is changed.
    """
    try:
        return _from_fields(fields, names)
    except _NotADocument as error:
        return invalid_document(key, error.reason, original)


def validated(document: Document) -> Document | InvalidDocument:
    """The document, or an InvalidDocument when its id or text breaks the rules of `Document`."""
    try:
        _checked_id(document.id)
        _check_surrogates(document.text)
    except _NotADocument as error:
        key = document.id.encode("utf-8", "backslashreplace").decode()
        return invalid_document(key, error.reason, document.text.encode("utf-8", "surrogatepass"))
    return document


def _parse(raw: bytes) -> dict[str, Any]:
    # orjson decides only the cases on which every JSON parser agrees. Input that it refuses or may have
    # rounded is parsed again by the exact parser, so no result depends on the limits of a library's version.
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _parse_exactly(raw)
    if type(value) is not dict:
        raise _NotADocument(DeadLetterReason.NOT_AN_OBJECT)
    for item in value.values():
        if _needs_exact_parse(item):
            value = _parse_exactly(raw)
            break
    fields: dict[str, Any] = value
    return fields


def _from_fields(value: dict[str, Any], names: FieldNames) -> Document:
    identity = _checked_id(value.pop(names.identity, None))
    text = value.pop(names.text[0], None)
    for name in names.text[1:]:
        if text is None:
            text = value.pop(name, None)
    if type(text) is not str:
        raise _NotADocument(
            DeadLetterReason.NO_CONTENT if text is None else DeadLetterReason.CONTENT_NOT_TEXT
        )
    if not text.isascii():
        _check_surrogates(text)
    return Document(identity, text, value, own_score(value))


def _needs_exact_parse(item: object) -> bool:
    if type(item) is str or item is None or type(item) is bool:
        return False
    if isinstance(item, float | int):
        return not -_INT64 <= item < _INT64
    return True


def _checked_id(value: object) -> str:
    if value is None:
        raise _NotADocument(DeadLetterReason.MISSING_ID)
    if type(value) is int:
        value = str(value)
    if type(value) is not str or not value:
        raise _NotADocument(DeadLetterReason.BAD_ID)
    _check_surrogates(value)
    if len(value.encode()) > _MAX_ID_BYTES or any(ord(char) < _FIRST_PRINTABLE for char in value):
        raise _NotADocument(DeadLetterReason.BAD_ID)
    return value


def _check_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NotADocument(DeadLetterReason.LONE_SURROGATE) from None


def own_score(metadata: dict[str, Any]) -> float:
    """Remove the field `score` from the metadata and return it; return 0.0 and keep it if it is no number."""
    score = metadata.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or abs(score) > _MAX_SCORE:
        return 0.0
    del metadata["score"]
    return float(score)


def _parse_exactly(raw: bytes) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _NotADocument(DeadLetterReason.INVALID_UTF8) from None
    if text.count("[") + text.count("{") > _MAX_DEPTH and _depth(text) > _MAX_DEPTH:
        raise _NotADocument(DeadLetterReason.TOO_DEEP)
    try:
        return json.loads(
            text, parse_constant=_refuse_constant, parse_int=_parse_int, parse_float=_parse_float
        )
    except ValueError:
        raise _NotADocument(DeadLetterReason.INVALID_JSON) from None


def parse_metadata(text: str) -> dict[str, Any]:
    """Parse the JSON of a database. Numbers keep every digit, as in files.

    orjson makes a float of an integer of more than 64 bits, and refuses a number that no float holds.
    """
    if not _LONG_NUMBER.search(text):
        try:
            return dict[str, Any](orjson.loads(text))
        except orjson.JSONDecodeError:
            # Half of a surrogate pair: the columns decide where it goes.
            pass
    return dict[str, Any](json.loads(text, parse_int=_parse_int, parse_float=_parse_float))


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _parse_int(digits: str) -> int | str:
    # Python refuses integers of more than 4,300 digits. As text they keep every digit.
    max_digits = 4000
    return int(digits) if len(digits) <= max_digits else digits


def _parse_float(digits: str) -> float | str:
    value = float(digits)
    return value if math.isfinite(value) else digits


def _depth(text: str) -> int:
    depth = deepest = 0
    in_string = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif in_string:
            escaped = char == "\\"
            in_string = char != '"'
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest
