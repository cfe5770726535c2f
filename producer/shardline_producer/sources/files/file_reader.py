"""Reads the items of one file: its bytes are decompressed, decoded, cut into records, and parsed."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.job.messages import Position
from shardline_common.runtime.paths import shown_path
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.documents import FieldNames, too_large
from shardline_producer.sources.files.compressed_members import CorruptStream
from shardline_producer.sources.files.decoder_memory import DecoderMemory, WindowsInUse, WindowTooLarge
from shardline_producer.sources.files.decompress import EmptyStream, decompressor
from shardline_producer.sources.files.encodings import decoder
from shardline_producer.sources.files.file_errors import REPLACE_DAMAGED, source_invalid
from shardline_producer.sources.files.file_format import format_of
from shardline_producer.sources.files.line_pieces import Piece, PieceCutter
from shardline_producer.sources.files.lines import BrokenText, Line, LineSplitter
from shardline_producer.sources.files.record_forms import FORMS
from shardline_producer.sources.query_filters import passes
from shardline_producer.sources.source import (
    AnyItem,
    Document,
    InvalidDocument,
    LineRendering,
    Render,
    RenderLine,
    SourceItem,
)

_BATCH_ITEMS = 1000
# A block of a file with the start of a line that the block before it left: one batch, not a second small one.
_BATCH_BYTES = (1 << 20) + (1 << 16)
Stream = Callable[[int], AsyncGenerator[bytes, None]]
ReadPieces = Callable[
    [Mapping[str, Any], "Cursor", AsyncGenerator[Piece | Line, None]], AsyncGenerator[list[AnyItem], None]
]
"""Reads the items of pieces of a file behind a cursor, in batches and in order."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The point where reading continues: index of the file, its records and bytes read, items yielded.

    The bytes are those of the text: decompressed, in UTF-8.
    """

    file: int = 0
    line: int = 0
    offset: int = 0
    ordinal: int = 0

    @classmethod
    def after(cls, position: Position | None) -> "Cursor":
        """The cursor behind a position; None: at the start."""
        return cls(*position) if position else cls()


@dataclass(frozen=True, slots=True)
class Reading:
    """How a job reads files: the largest record in bytes, the filters, `source.allow_empty`, the fields.

    `memory` is that of all decompressors of the process. `render`: what documents are rendered with, if they
    are. `packs`: they may be put together where they are rendered, because the caller need not count them.
    """

    max_record_bytes: int
    filters: Mapping[str, Any]
    allow_empty: bool
    names: FieldNames
    memory: DecoderMemory = field(default_factory=DecoderMemory)
    render: Render | None = None
    packs: bool = False


class FileReader:
    """Reads the items of one file from a cursor on."""

    def __init__(self, file: Mapping[str, Any], start: Cursor, reading: Reading) -> None:
        self._file = file
        self._reading = reading
        self._start = start
        self._index = start.file
        self._ordinal = start.ordinal
        found = format_of(file)
        self._decompressor = decompressor(found.compression, reading.memory)
        self._decoder = decoder(found.encoding)
        form = FORMS[found.records]
        self._records = form.splitter(reading.max_record_bytes, start.line, start.offset, found.options)
        names = reading.names.in_file(file["path"], file.get("name", file["path"]))
        self._parse_record = form.parser(found.options, names)
        self._render_line: RenderLine | None = None
        plain = found.records == "jsonl" and names.mapped is None and len(names.text) == 1
        rendering: object = reading.render
        if plain and not reading.filters and isinstance(rendering, LineRendering):
            self._render_line = rendering.of_lines(names.identity, names.text[0])
        self._seek = first_byte(file, start.offset)
        self._skip = start.offset - self._seek
        self._text_bytes = 0

    @property
    def expansion(self) -> float:
        """Bytes of the text per byte of the file, so far."""
        return self._text_bytes / self._decompressor.bytes_in if self._text_bytes else 1.0

    @property
    def ignored(self) -> int:
        """Bytes behind the end of the compressed data, which belong to nothing, so far."""
        return self._decompressor.ignored

    async def batches(
        self, stream: Stream, read_pieces: ReadPieces | None = None
    ) -> AsyncGenerator[list[AnyItem], None]:
        """Batches of items; each is parsed on a thread, or lines by `read_pieces`, where that is given.

        `stream` opens the file at an offset.

        Raises:
            JobFailed: the planned file is damaged or needs too much memory (`source_invalid`), or as
                `FileLocation.stream`.
            SourceUnavailable: other files hold the memory, or as `FileLocation.stream`.
        """
        async with aclosing(stream(self._seek)) as chunks:
            try:
                if read_pieces is not None and isinstance(self._records, LineSplitter):
                    found = read_pieces(self._file, self._start, self._pieces(chunks))
                else:
                    found = self._batches(chunks)
                async with aclosing(found) as batches:
                    async for batch in batches:
                        yield batch
            except (CorruptStream, BrokenText) as error:
                # To its end: a store that sent other bytes than the planned ones raises its error there.
                async for _ in chunks:
                    pass
                how, hint = "cut into records", None
                if isinstance(error, CorruptStream):
                    how, hint = "decompressed", error.hint
                raise JobFailed(
                    FailureCode.SOURCE_INVALID,
                    f"{self._file['path']} cannot be {how}: {error}",
                    hint=hint or REPLACE_DAMAGED,
                ) from None
            except WindowTooLarge as error:
                raise source_invalid(
                    f"{shown_path(self._file['path'])} cannot be decompressed here: {error}",
                    f"set SHARDLINE_MAX_WINDOW_BYTES to {error.needed}, where the machine has that memory; "
                    "or compress the file anew with a smaller window",
                ) from None
            except WindowsInUse as error:
                raise SourceUnavailable(
                    f"{shown_path(self._file['path'])} waits for memory: {error}",
                    hint="raise SHARDLINE_MAX_WINDOW_BYTES, or lower SHARDLINE_MAX_JOBS",
                ) from None
            finally:
                self._decompressor.close()

    async def _batches(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[list[AnyItem], None]:
        async for chunk in chunks:
            async with aclosing(batches_of(self._feed(chunk))) as batches:
                async for batch in batches:
                    yield batch
        async with aclosing(batches_of(self._finish())) as batches:
            async for batch in batches:
                yield batch

    async def _pieces(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[Piece | Line, None]:
        plain = format_of(self._file).is_plain
        cutter = PieceCutter(self._reading.max_record_bytes, self._start.line, self._start.offset)
        async for chunk in chunks:
            texts = self._texts(chunk)
            following = partial(next, texts, None)
            # To decompress takes a thread; a plain text is there.
            while (text := following() if plain else await run_in_thread(following)) is not None:
                for piece in cutter.feed(text):
                    yield piece
        for piece in cutter.feed(self._last_text()):
            yield piece
        for piece in cutter.finish():
            yield piece

    def _texts(self, chunk: bytes) -> Iterator[bytes]:
        for piece in self._decompressor.feed(chunk):
            text = self._decoder.feed(piece)
            self._text_bytes += len(text)
            rest = text[self._skip :]
            self._skip -= len(text) - len(rest)
            yield rest

    def _feed(self, chunk: bytes) -> Iterator[AnyItem]:
        for text in self._texts(chunk):
            yield from self.parse(self._records.feed(text))

    def _last_text(self) -> bytes:
        try:
            self._decompressor.finish()
        except EmptyStream as error:
            if not self._reading.allow_empty:
                raise source_invalid(
                    f"{shown_path(self._file['path'])} {error}: a compressed file without rows has some",
                    "replace the file, or set source.allow_empty, and submit a new job",
                ) from None
        text = self._decoder.finish()
        self._text_bytes += len(text)
        return text[self._skip :]

    def _finish(self) -> Iterator[AnyItem]:
        return self.parse_text(self._last_text())

    def parse_text(self, text: bytes) -> Iterator[AnyItem]:
        """The items of the rest of the records, in UTF-8."""
        yield from self.parse(self._records.feed(text))
        yield from self.parse(self._records.finish())

    def parse(self, records: Iterable[Line]) -> Iterator[AnyItem]:
        """The items of records."""
        filters, render, parse = self._reading.filters, self._reading.render, self._parse_record
        path, index, render_line = self._file["path"], self._index, self._render_line
        for record in records:
            if render_line is not None and record.digest is None:
                position = (index, record.number, record.end, self._ordinal + 1)
                item = render_line(record.text, position, record.size)
                if item is not None:
                    self._ordinal += 1
                    yield item
                    continue
            key = f"{path}:{record.number}"
            content: Document | InvalidDocument
            if record.digest is None:
                content = parse(record.text, key)
                if filters and isinstance(content, Document) and not passes(content, filters):
                    continue
            else:
                content = too_large(key, record.text, record.digest, record.size)
            self._ordinal += 1
            position = (index, record.number, record.end, self._ordinal)
            if render is not None and isinstance(content, Document):
                yield render(position, record.size, content)
            else:
                yield SourceItem(position, content, record.size)


def first_byte(file: Mapping[str, Any], offset: int) -> int:
    """The byte of a file where the read of its text from an offset on begins."""
    return offset if format_of(file).is_plain else 0


async def batches_of(
    items: Iterator[AnyItem],
) -> AsyncGenerator[list[AnyItem], None]:
    """The items in batches, each of them made by one call of a thread."""
    more = True
    while more:
        batch, more = await run_in_thread(partial(_take_batch, items))
        if batch:
            yield batch


def _take_batch(items: Iterator[AnyItem]) -> tuple[list[AnyItem], bool]:
    """The next items, up to the size of a batch, and whether there may be more."""
    batch: list[AnyItem] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item.size
        if len(batch) >= _BATCH_ITEMS or size >= _BATCH_BYTES:
            return batch, True
    return batch, False
