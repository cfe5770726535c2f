"""From a line to a document, or to a dead letter with a reason that a user understands."""

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

import orjson

from shardline_common.job.messages import DeadLetter
from shardline_producer.sources.source import Document, InvalidDocument

ORIGINAL_BYTES = 65_536
_MOST_ID_BYTES = 1024
_MOST_DEPTH = 100
_INT64 = 1 << 63
_CONTROL = 0x20
_MOST_SCORE = 1e300


class DeadLetterReason(StrEnum):
    """Why something cannot be a document: the closed list."""

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


_HINTS = {
    DeadLetterReason.INVALID_UTF8: "the line is not valid UTF-8",
    DeadLetterReason.INVALID_JSON: "the line is not valid JSON (NaN and Infinity are not)",
    DeadLetterReason.NOT_AN_OBJECT: "a document is a JSON object",
    DeadLetterReason.TOO_DEEP: f"the document is nested more than {_MOST_DEPTH} levels deep",
    DeadLetterReason.MISSING_ID: "the document has no document_id",
    DeadLetterReason.BAD_ID: f"document_id must be text of up to {_MOST_ID_BYTES} bytes without "
    "control characters",
    DeadLetterReason.NO_CONTENT: "the document has no content",
    DeadLetterReason.CONTENT_NOT_TEXT: "content must be text",
    DeadLetterReason.LONE_SURROGATE: "document_id or content holds half of a surrogate pair",
    DeadLetterReason.TOO_LARGE: "the document is larger than max_document_bytes",
    DeadLetterReason.VANISHED: "the document was planned, and then removed or marked deleted before it "
    "was read",
    DeadLetterReason.UNREADABLE_KEY: "ThemisDB cannot give a row alone whose key holds '/', '?', '#', '..', "
    "a backslash or white space; with source.lossless false it can be read",
    DeadLetterReason.NO_TEXT: "the document's body is a file without a text, such as a scanned PDF",
}


class _Unusable(Exception):
    def __init__(self, reason: DeadLetterReason) -> None:
        super().__init__(reason)
        self.reason = reason


def dead_letter(reason: DeadLetterReason, place: str, start: bytes, digest: str, size: int) -> DeadLetter:
    """The dead letter of something `size` bytes long that begins with `start`."""
    return DeadLetter(reason.value, f"{place}: {_HINTS[reason]}", digest, size, start[:ORIGINAL_BYTES])


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The fields that hold a document's id and its text; of several for the text the first that is there."""

    identity: str = "document_id"
    text: tuple[str, ...] = ("content",)


_FILES = FieldNames()


def parse_document(raw: bytes, place: str, names: FieldNames = _FILES) -> Document | InvalidDocument:
    """The document of a line; `place` names the line for people, and stands in for a missing id."""
    try:
        return _document(raw, names)
    except _Unusable as error:
        return InvalidDocument(
            place, dead_letter(error.reason, place, raw, sha256(raw).hexdigest(), len(raw))
        )


def validated(document: Document) -> Document | InvalidDocument:
    """The document, or its dead letter where id or text cannot be those of a row."""
    try:
        _identity(document.id)
        _check_surrogates(document.text)
    except _Unusable as error:
        raw = document.text.encode("utf-8", "surrogatepass")
        place = document.id.encode("utf-8", "backslashreplace").decode()
        return InvalidDocument(
            place, dead_letter(error.reason, place, raw, sha256(raw).hexdigest(), len(raw))
        )
    return document


def _document(raw: bytes, names: FieldNames) -> Document:
    # The fast path decides only what every JSON reader agrees on; what orjson refuses, or may have
    # rounded, is decided by the slow path, so that no result hangs on a library's limits.
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _slow_loads(raw)
    if type(value) is not dict:
        raise _Unusable(DeadLetterReason.NOT_AN_OBJECT)
    for item in value.values():
        if _needs_a_second_look(item):
            value = _slow_loads(raw)
            break
    identity = _identity(value.pop(names.identity, None))
    text = value.pop(names.text[0], None)
    for name in names.text[1:]:
        if text is None:
            text = value.pop(name, None)
    if type(text) is not str:
        raise _Unusable(DeadLetterReason.NO_CONTENT if text is None else DeadLetterReason.CONTENT_NOT_TEXT)
    if not text.isascii():
        _check_surrogates(text)
    return Document(identity, text, value, own_score(value))


def _needs_a_second_look(item: object) -> bool:
    if type(item) is str or item is None or type(item) is bool:
        return False
    if isinstance(item, float | int):
        return not -_INT64 <= item < _INT64
    return True


def _identity(value: object) -> str:
    if value is None:
        raise _Unusable(DeadLetterReason.MISSING_ID)
    if type(value) is int:
        value = str(value)
    if type(value) is not str or not value:
        raise _Unusable(DeadLetterReason.BAD_ID)
    _check_surrogates(value)
    if len(value.encode()) > _MOST_ID_BYTES or any(ord(char) < _CONTROL for char in value):
        raise _Unusable(DeadLetterReason.BAD_ID)
    return value


def _check_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Unusable(DeadLetterReason.LONE_SURROGATE) from None


def own_score(metadata: dict[str, Any]) -> float:
    """Take a document's own score out of its metadata; 0.0 where it has none, or it is no number."""
    score = metadata.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or abs(score) > _MOST_SCORE:
        return 0.0
    del metadata["score"]
    return float(score)


def _slow_loads(raw: bytes) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _Unusable(DeadLetterReason.INVALID_UTF8) from None
    if text.count("[") + text.count("{") > _MOST_DEPTH and _depth(text) > _MOST_DEPTH:
        raise _Unusable(DeadLetterReason.TOO_DEEP)
    try:
        return json.loads(
            text, parse_constant=_refuse_constant, parse_int=_parse_int, parse_float=_parse_float
        )
    except ValueError:
        raise _Unusable(DeadLetterReason.INVALID_JSON) from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _parse_int(digits: str) -> int | str:
    # Python refuses to read integers of more than 4,300 digits; as text they stay what they are.
    most = 4000
    return int(digits) if len(digits) <= most else digits


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
