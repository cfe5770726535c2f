"""JSON that is no JSONL: an array of documents, and documents of several lines one after the other."""

import json
import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Any

import orjson

from shardline_common.job.spec import FilesSource
from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.field_values import compile_mapping
from shardline_producer.sources.files.file_errors import source_invalid
from shardline_producer.sources.files.file_names import (
    is_named_csv,
    is_named_json,
    is_named_json_lines,
    is_named_text,
)
from shardline_producer.sources.files.lines import BOM, BrokenText, Line, RecordBuffer

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING_MARK = re.compile(rb'["\\]')
_STRUCTURE = re.compile(rb'["{}\[\]]')
_SCALAR_END = re.compile(rb'[ \t\r\n,{}\[\]"]')
_CLOSING = {ord("{"): ord("}"), ord("["): ord("]")}
_QUOTE, _COMMA, _ARRAY_BEGIN, _ARRAY_END = ord('"'), ord(","), ord("["), ord("]")
# A stack of this size costs one MiB. Documents are dead letters from 100 levels on.
_MAX_DEPTH = 1 << 20
# A word, a number or an escape that the end of the text may have cut.
_CUT_TOKEN = re.compile(r"[\w+\-.\\]*\s*\Z")
_JSON_SPACE = " \t\r\n"
_MEMBER = re.compile(r'[\s,]*"(?P<name>(?:[^"\\]|\\.)*)"\s*:\s*')
_OBJECTS = re.compile(r"\[\s*\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _State(Enum):
    START = auto()
    FIRST_ELEMENT = auto()
    ELEMENT = auto()
    INSIDE = auto()
    SEPARATOR = auto()
    END = auto()


class JsonSplitter:
    """Implements `Splitter` for the elements of a JSON array, or for JSON values one after the other.

    A record is the text of an element, byte by byte. Only brackets and strings are looked at: whether the
    element is valid JSON is the parser's question. `number` and `offset` are those of the element before the
    first chunk. An element of more than `max_bytes` is not held in memory.

    Raises BrokenText when the elements cannot be told apart, and when the text ends before the array: an
    array that was cut off must not look like a short one.
    """

    def __init__(self, max_bytes: int, number: int, offset: int, *, array: bool) -> None:
        self._array = array
        self._number = number
        self._offset = offset
        self._buffer = RecordBuffer(max_bytes)
        self._state = _State.START
        if offset:
            self._state = _State.SEPARATOR if array else _State.ELEMENT
        self._bom = 0
        self._begin = 0
        # The brackets that close the element, the innermost last.
        self._open = bytearray()
        self._in_string = self._escaped = False

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The elements that this chunk completes."""
        place, size = 0, len(chunk)
        while place < size:
            if self._state is _State.INSIDE:
                end, complete = self._element_end(chunk, place)
                self._buffer.add(chunk[place:end])
                place = end
                if complete:
                    self._state = _State.SEPARATOR if self._array else _State.ELEMENT
                    self._number += 1
                    yield self._buffer.take(self._number, self._offset + end)
            else:
                place = self._between(chunk, place)
        self._offset += size

    def finish(self) -> Iterator[Line]:
        """The last value, when its end is that of the text. Raises BrokenText when more must come."""
        if self._state is _State.INSIDE:
            if self._array or self._open or self._in_string:
                raise BrokenText(
                    f"it ends inside of element {self._number + 1:,}, which begins at byte {self._begin:,}"
                )
            self._number += 1
            yield self._buffer.take(self._number, self._offset)
        elif self._array and self._state is not _State.END:
            raise BrokenText(f"it ends behind element {self._number:,} without the ']' of its array")

    def _between(self, chunk: bytes, place: int) -> int:
        """Handle one character between the elements. Returns the place where the next one is looked for."""
        if self._state is _State.START and self._bom < len(BOM):
            if chunk[place] == BOM[self._bom]:
                self._bom += 1
                return place + 1
            # There is none: the white space begins here.
            self._bom = len(BOM)
        space = _SPACE.match(chunk, place)
        place = space.end() if space else place
        if place == len(chunk):
            return place
        byte = chunk[place]
        if self._state is _State.SEPARATOR and byte == _COMMA:
            self._state = _State.ELEMENT
        elif self._state in (_State.SEPARATOR, _State.FIRST_ELEMENT) and byte == _ARRAY_END:
            self._state = _State.END
        elif self._state is _State.START and self._array and byte == _ARRAY_BEGIN:
            self._state = _State.FIRST_ELEMENT
        elif self._expects_element and byte not in b",]}":
            return self._begin_element(chunk, place)
        else:
            raise self._broken(chunk, place, self._expected())
        return place + 1

    @property
    def _expects_element(self) -> bool:
        start = self._state is _State.START and not self._array
        return start or self._state in (_State.ELEMENT, _State.FIRST_ELEMENT)

    def _expected(self) -> str:
        if self._state is _State.END:
            return "behind the end of its array"
        if self._state is _State.SEPARATOR:
            return f"behind element {self._number:,} instead of ',' or ']'"
        if self._expects_element:
            return f"where element {self._number + 1:,} must begin"
        return "where its array must begin"

    def _begin_element(self, chunk: bytes, place: int) -> int:
        self._state, self._begin = _State.INSIDE, self._offset + place
        byte = chunk[place]
        if byte in _CLOSING:
            self._open.append(_CLOSING[byte])
        elif byte == _QUOTE:
            self._in_string = True
        self._buffer.add(chunk[place : place + 1])
        return place + 1

    def _element_end(self, chunk: bytes, place: int) -> tuple[int, bool]:
        """The place behind the element, and whether it ends in this chunk."""
        size = len(chunk)
        while place < size:
            if self._escaped:
                self._escaped = False
                place += 1
            elif self._in_string:
                mark = _STRING_MARK.search(chunk, place)
                if mark is None:
                    return size, False
                place = mark.end()
                if chunk[place - 1] != _QUOTE:
                    self._escaped = True
                    continue
                self._in_string = False
                if not self._open:
                    return place, True
            elif not self._open:
                end = _SCALAR_END.search(chunk, place)
                return (end.start(), True) if end else (size, False)
            else:
                mark = _STRUCTURE.search(chunk, place)
                if mark is None:
                    return size, False
                place = mark.end()
                self._bracket(chunk, place - 1)
                if not self._open:
                    return place, True
        return size, False

    def _bracket(self, chunk: bytes, place: int) -> None:
        byte = chunk[place]
        if byte == _QUOTE:
            self._in_string = True
        elif byte in _CLOSING:
            if len(self._open) == _MAX_DEPTH:
                raise self._broken(chunk, place, f"as bracket {_MAX_DEPTH:,} inside of another")
            self._open.append(_CLOSING[byte])
        elif byte == self._open[-1]:
            self._open.pop()
        else:
            raise self._broken(
                chunk, place, f"in element {self._number + 1:,} instead of '{self._open[-1]:c}'"
            )

    def _broken(self, chunk: bytes, place: int, where: str) -> BrokenText:
        shown = ascii(chr(chunk[place]))
        return BrokenText(f"it has {shown} at byte {self._offset + place:,} of its text, {where}")


def json_options(text: bytes) -> Mapping[str, Any]:
    """The options of the form for a text that begins with `text` and that the job calls JSON."""
    return {"array": _start(text)[:1] == b"["}


def _start(text: bytes) -> bytes:
    return text.removeprefix(BOM).lstrip(_JSON_SPACE.encode())


def detect_json(path: str, text: bytes, source: FilesSource) -> Mapping[str, Any] | None:
    """The options of the form `json` for a text that begins with `text`; None for JSONL and other forms.

    JSONL is what has a whole JSON value in its first line and something in another line, and what has an
    object in some line although its first line is damaged. Several objects in the first line are JSON when
    no other line is an object.

    Raises:
        JobFailed: the documents are in a list inside of one object (`source_invalid`).
    """
    start = _start(text)
    if start[:1] not in (b"[", b"{"):
        return None
    options = json_options(text)
    array = bool(options["array"])
    first, _, rest = start.partition(b"\n")
    more = bool(rest.strip())
    if more and _is_object(first):
        return None
    shown = start.decode(errors="replace")
    extent = _first_value(shown)
    if extent is _Extent.BROKEN:
        is_json = first.strip() in (b"[", b"{") or (
            is_named_json(path) and not any(map(_is_object, start.split(b"\n")))
        )
    elif extent is _Extent.ONE_LINE:
        joined = not array and _is_joined(shown) and not any(map(_is_object, start.split(b"\n")))
        is_json = joined or (array and not more)
    elif extent is _Extent.CUT and b"\n" not in start:
        # It may be the first line of JSONL, unless it is a list of objects.
        return options if _OBJECTS.match(shown) else None
    else:
        is_json = True
    if not array and (is_json or not more):
        _refuse_wrapped(path, shown, source)
    return options if is_json else None


def is_json_lines(path: str, text: bytes) -> bool:
    """Whether a file whose text begins with `text`, which is no array, is JSONL.

    Where the name says another form, at least half of the lines must be JSON; where it says nothing, one of
    them. A damaged line counts.
    """
    if is_named_json_lines(path):
        return True
    lines = [line for line in text.removeprefix(BOM).split(b"\n") if line.strip()]
    found = sum(map(_is_json_line, lines))
    needed = max(1, len(lines) / 2) if is_named_text(path) or is_named_csv(path) else 1
    return found >= needed


def _is_json_line(line: bytes) -> bool:
    if line.lstrip().startswith(b'{"'):
        return True
    try:
        return isinstance(orjson.loads(line), dict | list)
    except orjson.JSONDecodeError:
        return False


class _Extent(Enum):
    """The extent of the first value of a text."""

    ONE_LINE = auto()
    LINES = auto()
    CUT = auto()
    BROKEN = auto()


def _first_value(text: str) -> _Extent:
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        cut = _CUT_TOKEN.search(text)
        if error.msg.startswith("Unterminated string") or (cut and error.pos >= cut.start()):
            return _Extent.CUT
        return _Extent.BROKEN
    except (RecursionError, ValueError):
        # Nested too deep, or an integer of more digits than Python parses.
        return _Extent.BROKEN
    return _Extent.LINES if "\n" in text[:end] else _Extent.ONE_LINE


def _is_joined(text: str) -> bool:
    """Whether another object stands behind the first value, in its line. Amazon Data Firehose writes so."""
    _, end = json.JSONDecoder().raw_decode(text)
    return text[end:].lstrip(" \t").startswith("{")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _refuse_wrapped(path: str, text: str, source: FilesSource) -> None:
    """Refuse an object that has a list of objects, and neither the id nor the text of a document."""
    name = _list_of_objects(text, _own_fields(source))
    if name is None:
        return
    field = f".{name}" if _NAME.fullmatch(name) else f".[{json.dumps(name)}]"
    raise source_invalid(
        f"{shown_path(path)} is one JSON object, with a list of objects in its field {json.dumps(name)}",
        f"make a line of each: jq -c '{field}[]' {shown_path(path)} > documents.jsonl",
    )


def _own_fields(source: FilesSource) -> set[str]:
    """The names at the top of a document that hold its id or its text."""
    mapping = compile_mapping(source)
    paths = (mapping.identity, mapping.text, *mapping.template)
    return {path[0] for path in paths if isinstance(path, tuple)}


def _list_of_objects(text: str, own: set[str]) -> str | None:
    """The first field of the object that `text` begins with that is a list of objects.

    None if there is none, or if the object has a field of a document.
    """
    decoder = json.JSONDecoder()
    found, place = None, 1
    while member := _MEMBER.match(text, place):
        name, place = member["name"], member.end()
        if name in own:
            return None
        if found is None and _OBJECTS.match(text, place):
            found = name
        try:
            _, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            break
    return found
