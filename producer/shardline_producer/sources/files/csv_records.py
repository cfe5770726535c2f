"""The rows of CSV and TSV: cut from a text byte by byte, and parsed by a dialect that the plan has."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import Any

from shardline_producer.sources.documents import (
    DeadLetterReason,
    FieldNames,
    document_of,
    invalid_document,
)
from shardline_producer.sources.files.lines import BOM, BrokenText, Line, RecordBuffer
from shardline_producer.sources.source import Document, InvalidDocument

ESCAPE = "\\"
_NULL = "\\N"
# Fewer lines may look like rows by chance.
_MIN_SWALLOWED = 3


class BadQuotes(Exception):
    """A quoted cell is not closed, or text stands behind its closing quote."""


@dataclass(frozen=True)
class Dialect:
    """How cells are written. `quote` is "" when no character quotes a cell.

    A quote within a quoted cell is doubled. With `escape`, a backslash takes the next character as it is, and
    a cell that is only a backslash and N is null.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: bool = False
    header: Sequence[str] = ()
    # Rows before the first row of data: the header, and what stands above it.
    skip: int = 1

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Dialect":
        """The dialect of the options of a format."""
        return cls(**options)

    def to_json(self) -> dict[str, Any]:
        """The options of the format."""
        return {
            "delimiter": self.delimiter,
            "quote": self.quote,
            "escape": self.escape,
            "header": list(self.header),
            "skip": self.skip,
        }

    @cached_property
    def plain_end(self) -> re.Pattern[str]:
        """What ends a cell without quotes, or takes part in it."""
        return re.compile("[" + re.escape(self.delimiter) + (r"\\" if self.escape else "") + "]")

    @cached_property
    def quoted_end(self) -> re.Pattern[str]:
        """What ends a quoted cell, or takes part in it."""
        return re.compile("[" + re.escape(self.quote) + (r"\\" if self.escape else "") + "]")

    def is_simple(self, text: str) -> bool:
        """Whether a row has neither quotes nor escapes."""
        return not (self.quote and self.quote in text) and not (self.escape and ESCAPE in text)

    def is_simple_bytes(self, text: bytes) -> bool:
        """As `is_simple`."""
        quoted = self.quote and self.quote.encode() in text
        return not quoted and not (self.escape and ESCAPE.encode() in text)

    def cells(self, text: str) -> list[str | None]:
        """The cells of a row. An empty cell is None, also within quotes.

        Raises:
            BadQuotes: the quotes of the row are wrong.
        """
        if self.is_simple(text):
            return [cell or None for cell in text.split(self.delimiter)]
        found: list[str | None] = []
        place = 0
        while place <= len(text):
            cell, place = (
                self._quoted(text, place)
                if self.quote and text.startswith(self.quote, place)
                else self._plain(text, place)
            )
            found.append(cell or None)
        return found

    def _plain(self, text: str, start: int) -> tuple[str | None, int]:
        """The cell that begins at a place, and the place of the next one, or behind the text."""
        parts, place = list[str](), start
        while end := self.plain_end.search(text, place):
            parts.append(text[place : end.start()])
            place = end.end()
            if end[0] == self.delimiter:
                return self._joined(text, start, place - 1, parts), place
            parts.append(text[place : place + 1])
            place += 1
        parts.append(text[place:])
        return self._joined(text, start, len(text), parts), len(text) + 1

    def _joined(self, text: str, start: int, end: int, parts: Sequence[str]) -> str | None:
        return None if self.escape and text[start:end] == _NULL else "".join(parts)

    def _quoted(self, text: str, start: int) -> tuple[str, int]:
        parts, place = list[str](), start + 1
        while end := self.quoted_end.search(text, place):
            parts.append(text[place : end.start()])
            place = end.end()
            if end[0] != self.quote or text.startswith(self.quote, place):
                parts.append(text[place : place + 1])
                place += 1
            elif place == len(text) or text.startswith(self.delimiter, place):
                return "".join(parts), place + 1
            else:
                break
        raise BadQuotes


class _State(Enum):
    CELL = auto()
    PLAIN = auto()
    QUOTED = auto()
    CLOSED = auto()
    CLOSED_CR = auto()
    ESCAPED_PLAIN = auto()
    ESCAPED_QUOTED = auto()


_OPEN = (_State.QUOTED, _State.ESCAPED_QUOTED, _State.ESCAPED_PLAIN)


class CsvSplitter:
    """Implements `Splitter` for rows. A row ends with its line, unless a quoted cell goes on.

    Rows are numbered from 1, with the header and with empty lines, which are not returned. A quote that
    nobody closed would take all rows up to the next quote into its cell. When the lines that it took have as
    many cells as the header, only the line with the quote is a row of its own (its parser refuses it), and
    the others are cut anew. This is decided where quotes are found to be wrong: behind a closing quote, at
    the end of the text, and where a row is longer than `max_bytes`.

    Raises BrokenText when a cell is open at the end of the text, and the row is longer than `max_bytes`.
    """

    def __init__(self, max_bytes: int, number: int, offset: int, dialect: Dialect) -> None:
        self._max_bytes = max_bytes
        self._number = number
        self._offset = offset
        self._dialect = dialect
        self._columns = len(dialect.header)
        self._delimiter = ord(dialect.delimiter)
        self._quote = ord(dialect.quote) if dialect.quote else None
        self._plain_end = re.compile(dialect.plain_end.pattern.encode())
        self._quoted_end = re.compile(dialect.quoted_end.pattern.encode()) if dialect.quote else None
        # The bytes of a byte order mark that were read; behind the start there is none.
        self._bom = len(BOM) if offset else 0
        self._begin_row()

    def _begin_row(self) -> None:
        # Up to one byte over the limit, where it is decided whether a quote took further rows.
        self._held = bytearray()
        self._large: RecordBuffer | None = None
        self._state = _State.CELL
        self._bad = False

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The rows that this chunk completes."""
        # The rest of the chunk lies below the bytes that are cut anew. To join them would copy it for each
        # wrong quote.
        todo = [chunk]
        places = [0]
        while todo:
            text, place = todo[-1], places[-1]
            if place == len(text):
                todo.pop()
                places.pop()
                continue
            part = text[place : self._part_end(text, place)]
            if self._large is None and len(self._held) + len(part) > self._max_bytes:
                # To the same byte, however the text is cut into chunks.
                part = part[: max(1, self._max_bytes + 1 - len(self._held))]
            places[-1] += len(part)
            row, again = self._add(part)
            if again:
                todo.append(again)
                places.append(0)
            if row is not None:
                yield row

    def finish(self) -> Iterator[Line]:
        """The rows that the end of the text completes."""
        while self._held or self._large is not None:
            is_open = self._state in (_State.QUOTED, _State.ESCAPED_QUOTED)
            if self._large is not None and is_open:
                raise BrokenText(
                    f"row {self._number + 1:,}, which begins at byte {self._offset:,} of its text, has a "
                    "quote that is not closed"
                )
            self._bad |= is_open
            row, again = self._complete(line_end=0)
            if row is not None:
                yield row
            yield from self.feed(again)

    def _part_end(self, chunk: bytes, place: int) -> int:
        if self._large is not None and self._state is _State.QUOTED and self._quoted_end is not None:
            # Its lines mean nothing, and may be millions.
            mark = self._quoted_end.search(chunk, place)
            return mark.end() if mark else len(chunk)
        return chunk.find(b"\n", place) + 1 or len(chunk)

    def _add(self, part: bytes) -> tuple[Line | None, bytes]:
        """Add a part of a line. Returns the row that it completes, and the bytes that are cut anew."""
        ends = part.endswith(b"\n")
        self._scan(part[:-1] if ends else part)
        completes = ends and self._state not in _OPEN
        if self._large is None:
            self._held += part
        else:
            self._large.add(part[:-1] if completes else part)
        if completes:
            return self._complete(line_end=1)
        if ends and self._state is not _State.QUOTED:
            self._state = _State.QUOTED if self._state is _State.ESCAPED_QUOTED else _State.PLAIN
        if self._large is None and len(self._held) > self._max_bytes:
            if swallowed := self._swallowed(_MIN_SWALLOWED, cut=True):
                return self._first_line(swallowed)
            self._large = RecordBuffer(self._max_bytes)
            self._large.add(bytes(self._held))
            self._held.clear()
        return None, b""

    def _scan(self, part: bytes) -> None:
        """Follow the cells through a part of a line, without its line end."""
        place, size = 0, len(part)
        while self._bom < len(BOM) and place < size:
            if part[place] == BOM[self._bom]:
                self._bom += 1
                place += 1
            else:
                self._bom = len(BOM)
        simple = self._state in (_State.CELL, _State.PLAIN) and self._dialect.is_simple_bytes(part)
        if simple and place < size:
            self._state = _State.CELL if part[-1] == self._delimiter else _State.PLAIN
            return
        while place < size:
            place = self._step(part, place)

    def _step(self, part: bytes, place: int) -> int:
        state = self._state
        if state is _State.CELL:
            quoted = part[place] == self._quote
            self._state = _State.QUOTED if quoted else _State.PLAIN
            return place + quoted
        if state in (_State.ESCAPED_PLAIN, _State.ESCAPED_QUOTED):
            self._state = _State.PLAIN if state is _State.ESCAPED_PLAIN else _State.QUOTED
            return place + 1
        if state in (_State.CLOSED, _State.CLOSED_CR):
            return self._behind_quote(part, place)
        ends = self._quoted_end if state is _State.QUOTED and self._quoted_end else self._plain_end
        end = ends.search(part, place)
        if end is None:
            return len(part)
        byte = part[end.start()]
        if byte == self._quote and state is _State.QUOTED:
            self._state = _State.CLOSED
        elif byte == self._delimiter and state is _State.PLAIN:
            self._state = _State.CELL
        else:
            self._state = _State.ESCAPED_QUOTED if state is _State.QUOTED else _State.ESCAPED_PLAIN
        return end.end()

    def _behind_quote(self, part: bytes, place: int) -> int:
        byte = part[place]
        if byte == self._quote and self._state is _State.CLOSED:
            self._state = _State.QUOTED
        elif byte == self._delimiter and self._state is _State.CLOSED:
            self._state = _State.CELL
        elif byte == ord("\r") and self._state is _State.CLOSED:
            self._state = _State.CLOSED_CR
        else:
            self._state, self._bad = _State.PLAIN, True
            return place
        return place + 1

    def _complete(self, line_end: int) -> tuple[Line | None, bytes]:
        if self._bad and self._large is None and (swallowed := self._swallowed(1, cut=False)):
            return self._first_line(swallowed)
        self._number += 1
        if self._large is not None:
            self._offset += self._large.size + line_end
            row = self._large.take(self._number, self._offset)
            self._begin_row()
            return row, b""
        text = bytes(self._held)
        self._offset += len(text)
        self._begin_row()
        return self._row(text), b""

    def _row(self, text: bytes) -> Line | None:
        if self._number == 1:
            text = text.removeprefix(BOM)
        text = text.removesuffix(b"\n").removesuffix(b"\r")
        blank = not text.replace(b"\t", b"\t" if self._delimiter == ord("\t") else b" ").strip(b" \r\v\f")
        if blank or self._number <= self._dialect.skip:
            return None
        return Line(self._number, self._offset, text, len(text))

    def _first_line(self, swallowed: bytes) -> tuple[Line | None, bytes]:
        """The first line of the row as a row of its own, and the others, which are cut anew."""
        first = bytes(self._held[: len(self._held) - len(swallowed)])
        self._number += 1
        self._offset += len(first)
        self._begin_row()
        return self._row(first), swallowed

    def _swallowed(self, least: int, *, cut: bool) -> bytes:
        """What stands behind the first line of the row, if its lines are rows; else nothing.

        With `cut`, the last line is not looked at. The line that closes the quote may have any cells, unless
        it is the only one.
        """
        lines = bytes(self._held).split(b"\n")
        if not lines[-1]:
            lines.pop()
        if len(lines) == 1 or self._columns < 2:  # noqa: PLR2004 - any line is a row of one cell
            return b""
        between = lines[1:-1] if cut or len(lines) > 2 else lines[1:]  # noqa: PLR2004 - the only further line
        plain = Dialect(self._dialect.delimiter, "")
        if len(plain.cells(lines[0].decode(errors="replace"))) != self._columns or len(between) < least:
            return b""
        for line in between:
            try:
                cells = self._dialect.cells(line.decode(errors="replace").removesuffix("\r"))
            except BadQuotes:
                cells = plain.cells(line.decode(errors="replace"))
            if line.strip() and len(cells) != self._columns:
                return b""
        return bytes(self._held[len(lines[0]) + 1 :])


def parse_row(dialect: Dialect, names: FieldNames, raw: bytes, key: str) -> Document | InvalidDocument:
    """The document of a row: its cells are texts, or null."""
    try:
        cells = dialect.cells(raw.decode())
    except UnicodeDecodeError:
        return invalid_document(key, DeadLetterReason.INVALID_UTF8, raw)
    except BadQuotes:
        return invalid_document(key, DeadLetterReason.BAD_QUOTES, raw)
    if len(cells) != len(dialect.header):
        return invalid_document(key, DeadLetterReason.WRONG_COLUMNS, raw)
    return document_of(dict(zip(dialect.header, cells, strict=True)), key, raw, names)
