"""From the bytes of a line to a document, or to a dead letter with its reason."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b, sha256
from typing import Any

import orjson

from shardline_common.job.field_mapping import HASH
from shardline_common.job.messages import MAX_ORIGINAL_BYTES, DeadLetter
from shardline_common.job.spec import FilesSource
from shardline_producer.sources.field_values import (
    MISSING,
    MappedFields,
    TemplateField,
    compile_mapping,
    printed,
    take,
    value_at,
)
from shardline_producer.sources.source import Document, InvalidDocument

_MAX_ID_BYTES = 1024
_MAX_DEPTH = 100
_MAX_SCORE = 1e300
_OWN_SCORE = ("score",)
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
    MISSING_FIELD = "missing_field"
    LONE_SURROGATE = "lone_surrogate"
    WRONG_COLUMNS = "wrong_columns"
    BAD_QUOTES = "bad_quotes"
    TOO_LARGE = "too_large"
    VANISHED = "vanished"
    UNREADABLE_KEY = "unreadable_key"
    NO_TEXT = "no_text"
    INCOMPLETE_TEXT = "incomplete_text"
    UNREADABLE_ROW = "unreadable_row"


_HINTS = {
    DeadLetterReason.INVALID_UTF8: "it is not valid UTF-8, or not valid in the encoding of its file",
    DeadLetterReason.INVALID_JSON: "the line is not valid JSON (NaN and Infinity are not)",
    DeadLetterReason.NOT_AN_OBJECT: "a document is a JSON object",
    DeadLetterReason.TOO_DEEP: f"the document is nested more than {_MAX_DEPTH} levels deep",
    DeadLetterReason.MISSING_ID: "the document has no {id}",
    DeadLetterReason.BAD_ID: f"{{id}} must be text of up to {_MAX_ID_BYTES} bytes without control characters",
    DeadLetterReason.NO_CONTENT: "the document has no {text}",
    DeadLetterReason.CONTENT_NOT_TEXT: "{text} must be text",
    DeadLetterReason.MISSING_FIELD: "the document has no {text}, which is in the template of the text",
    DeadLetterReason.LONE_SURROGATE: "{id} or {text} holds half of a surrogate pair",
    DeadLetterReason.WRONG_COLUMNS: "the row has more or fewer cells than the header",
    DeadLetterReason.BAD_QUOTES: "a quote is not closed, or a cell goes on behind its closing quote",
    DeadLetterReason.TOO_LARGE: "the document is larger than max_document_bytes",
    DeadLetterReason.VANISHED: "the document was removed or marked deleted after it was planned, "
    "before it was read",
    DeadLetterReason.UNREADABLE_KEY: "ThemisDB cannot return a single row whose key holds '/', '?', '#', "
    "'..', a backslash or white space; a job with source.lossless false can read it",
    DeadLetterReason.NO_TEXT: "the document's body is a file without text, such as a scanned PDF",
    DeadLetterReason.INCOMPLETE_TEXT: "a chunk of the document is missing in ChromaDB, has no text, or "
    "has no place among the others (chunk_index)",
    DeadLetterReason.UNREADABLE_ROW: "the database cannot return this row",
}


class _NotADocument(Exception):
    """`culprit` is the field of a template that is wrong. `fields` are those that were read, if any."""

    def __init__(self, reason: DeadLetterReason, culprit: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.culprit = culprit
        self.fields: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The fields with a document's id and text: of the names in `text`, the first field that is not null.

    With `mapped`, that says what becomes of every field, and the names are only those of messages. Ids that
    are lines begin with `file_name` in place of the path of the file, with which keys begin.
    """

    identity: str = "document_id"
    text: tuple[str, ...] = ("content",)
    mapped: MappedFields | None = None
    path: str = ""
    file_name: str = ""

    def in_file(self, path: str, name: str) -> "FieldNames":
        """The fields of the documents of one file, whose keys are `<path>:<line>` and ids `<name>:<line>`."""
        return self if self.mapped is None else replace(self, path=path, file_name=name)

    def line_id(self, key: str) -> str:
        """The id of a line with this key."""
        return self.file_name + key.removeprefix(self.path)


_DEFAULT_FIELDS = FieldNames()


def meaning(reason: str, names: FieldNames = _DEFAULT_FIELDS) -> str:
    """What a reason says, as a sentence without a place; the reason itself when this version has no such."""
    if reason not in _HINTS:
        return reason
    # Of a template only the dead letter in Kafka names the field.
    text = "field" if reason == DeadLetterReason.MISSING_FIELD else names.text[0]
    return _HINTS[DeadLetterReason(reason)].format(id=names.identity, text=text)


def without_values(letter: DeadLetter) -> DeadLetter:
    """A dead letter without the original and without a value in its hint, of a job that redacts."""
    return DeadLetter(letter.reason, meaning(letter.reason), letter.sha256, letter.size, b"")


def field_names(source: FilesSource) -> FieldNames:
    """The fields of a job over files, compiled once for all of its documents."""
    mapping = compile_mapping(source)
    identity, text = mapping.identity or (), mapping.text or ()
    plain = len(identity) == len(text) == 1 and identity != text
    if plain and mapping.score == _OWN_SCORE and not mapping.lifts:
        # Other names alone cost nothing.
        return FieldNames(identity[0], text)
    return FieldNames(source.fields.id, (source.fields.text,), mapping)


def dead_letter(
    reason: DeadLetterReason,
    key: str,
    start: bytes,
    digest: str,
    size: int,
    names: FieldNames = _DEFAULT_FIELDS,
) -> DeadLetter:
    """The dead letter of an original of `size` bytes, whose sha256 is `digest` and which begins with `start`.

    `key` names it in the message: its id, or where it was read.
    """
    hint = _HINTS[reason].format(id=names.identity, text=names.text[0])
    return DeadLetter(reason.value, f"{key}: {hint}", digest, size, start[:MAX_ORIGINAL_BYTES])


def invalid_document(key: str, reason: DeadLetterReason, original: bytes = b"") -> InvalidDocument:
    """The InvalidDocument of input that cannot be a document; `original` is all that was read of it."""
    return _invalid(key, _NotADocument(reason), original, _DEFAULT_FIELDS)


def too_large(key: str, start: bytes, digest: str, size: int) -> InvalidDocument:
    """The InvalidDocument of an original over `max_document_bytes`; the arguments as in `dead_letter`."""
    return InvalidDocument(key, dead_letter(DeadLetterReason.TOO_LARGE, key, start, digest, size))


def _invalid(key: str, error: _NotADocument, original: bytes, names: FieldNames) -> InvalidDocument:
    if error.culprit:
        names = replace(names, text=(error.culprit,))
    digest = sha256(original).hexdigest()
    letter = dead_letter(error.reason, key, original, digest, len(original), names)
    return InvalidDocument(key, letter, error.fields)


def parse_document(raw: bytes, key: str, names: FieldNames = _DEFAULT_FIELDS) -> Document | InvalidDocument:
    """Parse a JSON object as a document; when it cannot be one, an InvalidDocument with the key `key`."""
    try:
        value, exactly = _parse(raw)
        return _from_fields(value, key, names, surrogates=exactly)
    except _NotADocument as error:
        return _invalid(key, error, raw, names)


def document_of(
    fields: dict[str, Any], key: str, original: bytes, names: FieldNames = _DEFAULT_FIELDS
) -> Document | InvalidDocument:
    """A document of the fields of a row, which are no JSON text; `original` is what was read of it.

    The fields become the metadata: the dict is changed.
    """
    try:
        return _from_fields(fields, key, names)
    except _NotADocument as error:
        return _invalid(key, error, original, names)


def validated(document: Document) -> Document | InvalidDocument:
    """The document, or an InvalidDocument when its id or text breaks the rules of `Document`."""
    try:
        _checked_id(document.id)
        _check_surrogates(document.text)
    except _NotADocument as error:
        key = document.id.encode("utf-8", "backslashreplace").decode()
        return invalid_document(key, error.reason, document.text.encode("utf-8", "surrogatepass"))
    return document


def _parse(raw: bytes) -> tuple[dict[str, Any], bool]:
    """The fields, and whether the exact parser made them: only then a text may hold half of a pair."""
    # orjson decides only the cases on which every JSON parser agrees. Input that it refuses or may have
    # rounded is parsed again by the exact parser, so no result depends on the limits of a library's version.
    exactly = False
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value, exactly = _parse_exactly(raw), True
    if type(value) is not dict:
        raise _NotADocument(DeadLetterReason.NOT_AN_OBJECT)
    for item in value.values():
        if type(item) is not str and _needs_exact_parse(item, raw):
            value, exactly = _parse_exactly(raw), True
            break
    return value, exactly


def _from_fields(value: dict[str, Any], key: str, names: FieldNames, *, surrogates: bool = True) -> Document:
    """`surrogates`: the values may hold half of a surrogate pair, which orjson never returns."""
    if names.mapped is not None:
        try:
            return _from_mapped(value, key, names, names.mapped)
        except _NotADocument as error:
            error.fields = value
            raise
    given = value.pop(names.identity, None)
    text = value.pop(names.text[0], None)
    try:
        identity = given if is_plain_id(given) else _checked_id(given)
        if text is None:
            for name in names.text[1:]:
                if (text := value.pop(name, None)) is not None:
                    break
        if surrogates or type(text) is not str:
            _check_text(text)
    except _NotADocument as error:
        taken = {names.identity: given, names.text[0]: text}
        error.fields = {name: one for name, one in taken.items() if one is not None} | value
        raise
    document = Document(identity, text, value, own_score(value))
    if identity is not given:
        document.id_is_number = True
    return document


def _check_text(text: object) -> None:
    if type(text) is not str:
        raise _NotADocument(
            DeadLetterReason.NO_CONTENT if text is None else DeadLetterReason.CONTENT_NOT_TEXT
        )
    if not text.isascii():
        _check_surrogates(text)


def _from_mapped(value: dict[str, Any], key: str, names: FieldNames, mapping: MappedFields) -> Document:
    given = identity = ""
    if mapping.identity is not None:
        given = value_at(value, mapping.identity)
        identity = _checked_id(None if given is MISSING else given)
    text = _mapped_text(value, mapping)
    if mapping.generated:
        given = identity = _checked_id(text_id(text) if mapping.generated == HASH else names.line_id(key))
    score = as_score(value_at(value, mapping.score))
    take(value, mapping, scored=score is not None)
    return Document(identity, text, value, score or 0.0, identity is not given)


def _mapped_text(value: dict[str, Any], mapping: MappedFields) -> str:
    if mapping.text is None:
        try:
            text: Any = printed(value, mapping.template)
        except TemplateField as error:
            reasons = DeadLetterReason
            reason = reasons.MISSING_FIELD if error.missing else reasons.CONTENT_NOT_TEXT
            raise _NotADocument(reason, str(error)) from None
    else:
        text = value_at(value, mapping.text)
    _check_text(None if text is MISSING else text)
    return str(text)


def text_id(text: str) -> str:
    """The id that a job makes of a text: BLAKE2b-128 of its UTF-8, in hexadecimal."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _needs_exact_parse(value: Any, raw: bytes) -> bool:
    """Whether orjson may have changed this value of a document, or the document may be nested too deep."""
    kind = type(value)
    if kind is float or kind is int:
        return not -_INT64 <= value < _INT64
    if kind is not list and kind is not dict:
        return False
    if raw.count(b"[") + raw.count(b"{") > _MAX_DEPTH:
        return True
    return _has_long_number(value)


def _has_long_number(container: Any) -> bool:
    for value in container if type(container) is list else container.values():
        kind = type(value)
        if kind is str:
            continue
        if (kind is float or kind is int) and not -_INT64 <= value < _INT64:
            return True
        if (kind is list or kind is dict) and _has_long_number(value):
            return True
    return False


def is_plain_id(value: Any) -> bool:
    """Whether a value is an id that all rules of `_checked_id` leave as it is: printable ASCII."""
    return type(value) is str and 0 < len(value) <= _MAX_ID_BYTES and value.isascii() and value.isprintable()


def are_plain_ids(values: Sequence[str]) -> bool:
    """Whether `is_plain_id` is true for all of some texts."""
    joined = "".join(values)
    return (
        joined.isascii()
        and joined.isprintable()
        and all(values)
        and max(map(len, values), default=0) <= _MAX_ID_BYTES
    )


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
    score = as_score(metadata.get("score"))
    if score is None:
        return 0.0
    del metadata["score"]
    return score


def as_score(value: object) -> float | None:
    """A value as the score of a document; None if it is no number, or one that no score can be."""
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, int | float)):
        return None
    return None if value > _MAX_SCORE or value < -_MAX_SCORE else float(value)


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


def parse_json_text(text: str) -> Any:
    """The value of a JSON text with every digit; the text itself when it is no JSON, or nested too deep."""
    try:
        return _parse_exactly(text.encode("utf-8", "surrogatepass"))
    except _NotADocument:
        return text


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
