"""The source `files`: JSONL and NDJSON, plain, .gz or .zst, local or on S3."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.messages import Position
from shardline_common.job.spec import FilesSource, JobSpec
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.documents import DeadLetterReason, dead_letter, parse_document
from shardline_producer.sources.files.decompress import CorruptStream, Decompressor, Plain, decompressor
from shardline_producer.sources.files.file_locations import FileLocation, invalid
from shardline_producer.sources.files.lines import Line, LineSplitter
from shardline_producer.sources.query_filters import check_filters, passes
from shardline_producer.sources.source import DeclaredSource, Document, Frozen, InvalidDocument, SourceItem

_MOST_ITEMS = 1000
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where reading goes on: file, lines done, bytes done (uncompressed), items given."""

    file: int = 0
    line: int = 0
    offset: int = 0
    ordinal: int = 0

    @classmethod
    def after(cls, position: Position | None) -> "Cursor":
        """Behind a position (file, line, offset behind the line, ordinal)."""
        return cls(*position) if position else cls()


class JsonLinesFiles:
    """Implements `Source`. Positions are (file, line, offset behind the line, ordinal)."""

    def __init__(self, spec: JobSpec, local: FileLocation, remote: FileLocation | None) -> None:
        if not isinstance(spec.source, FilesSource):
            raise TypeError(spec.source.type)
        self._spec = spec
        self._paths = spec.source.paths
        self._local = local
        self._remote = remote
        self._reader: _FileReader | None = None

    async def freeze(self) -> list[dict[str, Any]]:
        """Every file once, where it is first named; patterns by name."""
        files: dict[str, dict[str, Any]] = {}
        for pattern in self._paths:
            place = self._place(pattern)
            found = await place.find(pattern)
            if not found:
                raise invalid(f"no file matches {pattern!r}", place.advice)
            for file in found:
                files.setdefault(file["path"], file)
        return list(files.values())

    def _place(self, path: str) -> FileLocation:
        if not path.startswith("s3://"):
            return self._local
        if self._remote is None:
            raise invalid(
                f"{path} is on S3, and no S3 is configured", "set AWS_ENDPOINT_URL_S3 or AWS_REGION"
            )
        return self._remote

    def declared(self, frozen: Frozen) -> DeclaredSource:  # noqa: ARG002 - it knows nothing beforehand
        """Nothing: files tell their fields only when they are read."""
        return DeclaredSource()

    def check_query(self, fields: Sequence[str]) -> None:
        """Check the filters against the fields found."""
        check_filters(self._spec.query.filters, fields)

    async def sample(self, frozen: Frozen) -> AsyncGenerator[list[SourceItem], None]:
        """All items, unfiltered."""
        async for batch in self._items(frozen, Cursor(), {}):
            yield batch

    async def read(self, frozen: Frozen, after: Position | None) -> AsyncGenerator[list[SourceItem], None]:
        """Items behind a position that pass the filters, up to top_k of them."""
        query, start = self._spec.query, Cursor.after(after)
        left = None if query.top_k is None else query.top_k - start.ordinal
        if left is not None and left <= 0:
            return
        async with aclosing(self._items(frozen, start, query.filters)) as batches:
            async for batch in batches:
                if left is not None and len(batch) >= left:
                    yield batch[:left]
                    return
                left = None if left is None else left - len(batch)
                yield batch

    @property
    def _inflation(self) -> float:
        """How many bytes of text came of one byte of the file that is being read."""
        return self._reader.inflation if self._reader else 1.0

    def progress(self, frozen: Frozen, position: Position | None) -> float:
        """By files and bytes; of a compressed file by the ratio that was seen so far."""
        cursor = Cursor.after(position)
        total: int = sum(file["size"] for file in frozen) or 1
        before: int = sum(file["size"] for file in frozen[: cursor.file])
        if cursor.file < len(frozen):
            size = frozen[cursor.file]["size"]
            before += min(size, int(cursor.offset / self._inflation))
        return min(1.0, before / total)

    async def _items(
        self, frozen: Frozen, start: Cursor, filters: Mapping[str, Any]
    ) -> AsyncGenerator[list[SourceItem], None]:
        ordinal = start.ordinal
        for number in range(start.file, len(frozen)):
            begin = start if number == start.file else Cursor(file=number)
            reader = _FileReader(frozen[number], begin, self._spec.max_document_bytes, filters)
            self._reader = reader
            place = self._place(frozen[number]["path"])
            async with aclosing(reader.batches(place, ordinal)) as batches:
                async for batch in batches:
                    ordinal = batch[-1].position[-1]
                    yield batch


class _FileReader:
    """Reads one file from a cursor on."""

    def __init__(
        self, file: Mapping[str, Any], start: Cursor, longest: int, filters: Mapping[str, Any]
    ) -> None:
        self._file = dict(file)
        self._start = start
        self._longest = longest
        self._filters = filters
        self._decoder: Decompressor = decompressor(file["path"])
        seeks = isinstance(self._decoder, Plain)
        self._seek = start.offset if seeks else 0
        self._skip = 0 if seeks else start.offset
        self._lines = LineSplitter(longest, start.line, start.offset)
        self._ordinal = start.ordinal

    @property
    def inflation(self) -> float:
        """Bytes of text of one byte of the file."""
        return self._decoder.given / self._decoder.taken if self._decoder.given else 1.0

    async def batches(self, place: FileLocation, ordinal: int) -> AsyncGenerator[list[SourceItem], None]:
        self._ordinal = ordinal
        stream = place.stream(self._file, self._seek)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                work = self._decode(chunk)
                while batch := await self._batch(work):
                    yield batch
        rest = self._finish()
        while batch := await self._batch(rest):
            yield batch

    async def _batch(self, work: Iterator[SourceItem]) -> list[SourceItem]:
        try:
            return await run_in_thread(partial(_some, work))
        except CorruptStream as error:
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"{self._file['path']} cannot be decompressed: {error}",
                hint="the file is broken or was cut off; make it anew and submit a new job",
            ) from None

    def _decode(self, chunk: bytes) -> Iterator[SourceItem]:
        for piece in self._decoder.feed(chunk):
            fresh = piece
            if self._skip:
                fresh = piece[self._skip :]
                self._skip -= len(piece) - len(fresh)
            yield from self._parse(self._lines.feed(fresh))

    def _finish(self) -> Iterator[SourceItem]:
        self._decoder.finish()
        yield from self._parse(self._lines.finish())

    def _parse(self, lines: Iterator[Line]) -> Iterator[SourceItem]:
        for line in lines:
            content = self._content(line)
            if isinstance(content, Document) and self._filters and not passes(content, self._filters):
                continue
            self._ordinal += 1
            position = (self._start.file, line.number, line.end, self._ordinal)
            yield SourceItem(position, content, line.size)

    def _content(self, line: Line) -> Document | InvalidDocument:
        place = f"{self._file['path']}:{line.number}"
        if line.digest is None:
            return parse_document(line.text, place)
        return InvalidDocument(
            place, dead_letter(DeadLetterReason.TOO_LARGE, place, line.text, line.digest, line.size)
        )


def _some(work: Iterator[SourceItem]) -> list[SourceItem]:
    batch: list[SourceItem] = []
    size = 0
    for item in work:
        batch.append(item)
        size += item.size
        if len(batch) >= _MOST_ITEMS or size >= _MOST_BYTES:
            break
    return batch
