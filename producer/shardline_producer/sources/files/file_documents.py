"""The source `files`: files in local folders or S3 buckets."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import astuple
from functools import partial
from typing import Any, cast

from shardline_common.errors import FailureCode, JobFailed, ShardlineError
from shardline_common.job.findings import Findings, Level
from shardline_common.job.messages import Position
from shardline_common.job.spec import FilesSource, JobSpec
from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.documents import field_names
from shardline_producer.sources.field_proposals import advice, fields_of
from shardline_producer.sources.files.decoder_memory import DecoderMemory
from shardline_producer.sources.files.file_cuts import cut_files
from shardline_producer.sources.files.file_errors import OtherEncoding, source_invalid
from shardline_producer.sources.files.file_format import TABLES, format_of
from shardline_producer.sources.files.file_locations import FileLocation, is_remote
from shardline_producer.sources.files.file_planning import plan_files, plan_notes
from shardline_producer.sources.files.file_ranges import CutPoint, FileRange, FileSizes
from shardline_producer.sources.files.file_reader import Cursor, FileReader, Reading, ReadPieces, first_byte
from shardline_producer.sources.files.frozen_blocks import FrozenBlocks
from shardline_producer.sources.files.ignored_bytes import IgnoredBytes
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.files.path_schemes import refuse_unknown_scheme
from shardline_producer.sources.files.reading_processes import open_reading
from shardline_producer.sources.files.table_copies import TableCopies
from shardline_producer.sources.files.table_reader import TableReader
from shardline_producer.sources.query_filters import check_filters
from shardline_producer.sources.source import (
    AnyItem,
    Cuts,
    DeclaredSource,
    Frozen,
    InvalidDocument,
    Part,
    PlanPages,
    Render,
    SourceItem,
)

_MAPPED = 500
_DIGESTS = "size and time of each file, and the sha256 of each block, were compared in every read"
_TOUCHED = (
    "the change time of {} of the files moved between planning and reading, so only size and time show "
    "that their bytes are those of the plan"
)
_ETAGS = "size and ETag of each object were compared in every read"
_NO_ETAGS = "the store gives no ETag, so only the sizes of objects were compared"


class FileDocuments:
    """Implements `Source`. A position is (index of the file, line, offset behind the line, ordinal).

    The frozen part is the list of files, as `FileLocation` describes them. `remote` is None when S3 is not
    configured. `pages` hold the digests of what is read. `copies` are those of files that need random access,
    `memory` bounds the decompressors of the process. Up to `processes` read the lines of large files for
    `read_rendered`.
    """

    def __init__(
        self,
        spec: JobSpec,
        local: LocalFiles,
        remote: FileLocation | None,
        pages: PlanPages,
        copies: TableCopies | None = None,
        memory: DecoderMemory | None = None,
        processes: int = 1,
    ) -> None:
        if not isinstance(spec.source, FilesSource):
            raise TypeError(spec.source.type)
        self._spec = spec
        self._source = spec.source
        self._local = local
        self._remote = remote
        self._pages = pages
        self._copies = copies or TableCopies()
        self._memory = memory or DecoderMemory()
        self._processes = processes
        self._touched = 0
        self._ignored: IgnoredBytes | None = None
        self._render: Render | None = None
        self._sizes: FileSizes | None = None
        # Bytes of the text per byte of the file that is being read.
        self._expansion = 1.0

    async def freeze(self) -> list[dict[str, Any]]:
        """The files in the order of the job's paths, with their formats."""
        try:
            return await plan_files(self._source, self._location)
        except OtherEncoding as error:
            # With the encoding alone, a job whose fields have other names would fail once more.
            error.hint = await self._mapping_in(error.encoding) or error.hint
            raise

    async def _mapping_in(self, encoding: str) -> str | None:
        """The source to write into the job, when in `encoding` the fields of id and text are missing too."""
        source = self._source.model_copy(update={"encoding": encoding})
        spec = self._spec.model_copy(update={"source": source})
        decoded = FileDocuments(spec, self._local, self._remote, self._pages, self._copies, self._memory)
        read, fields = 0, list[Mapping[str, Any]]()
        try:
            async with aclosing(decoded.sample(await decoded.freeze())) as batches:
                async for batch in batches:
                    contents = [item.content for item in batch]
                    if not all(isinstance(one, InvalidDocument) for one in contents):
                        return None
                    fields += fields_of(contents)
                    read += len(contents)
                    if read >= _MAPPED:
                        break
        except ShardlineError:
            # Another fault is reported when this one is mended.
            return None
        return advice(source, fields, self._spec.quality.min_score) if fields else None

    def _location(self, path: str) -> FileLocation:
        refuse_unknown_scheme(path)
        if not is_remote(path):
            return self._local
        if self._remote is None:
            raise source_invalid(
                f"{shown_path(path)} is on S3, and S3 is not configured",
                "set AWS_ENDPOINT_URL_S3 or AWS_REGION",
            )
        return self._remote

    def declared(self, frozen: Frozen) -> DeclaredSource:
        """Notes on the files. Columns are known only when the files are read."""
        return DeclaredSource(notes=plan_notes(frozen))

    def check_query(self, fields: Sequence[str]) -> None:
        """Check the filters against the sampled fields."""
        check_filters(self._spec.query.filters, fields)

    async def sample(self, frozen: Frozen) -> AsyncGenerator[list[SourceItem], None]:
        """All items, including those that the filters exclude."""
        async with aclosing(self._items(frozen, Cursor(), {}, None, FileRange.of(None, frozen))) as batches:
            async for batch in batches:
                yield batch

    async def cut(self, frozen: Frozen, slices: int) -> Cuts:
        """Ranges of about as many bytes, between files and inside of plain JSONL."""
        if self._spec.query.top_k is not None:
            return Cuts([{}], "query.top_k counts documents from the start of the source")

        def open_file(index: int) -> AsyncGenerator[bytes, None]:
            file = dict(frozen[index])
            return self._location(file["path"]).stream(file, 0)

        return await cut_files(frozen, slices, open_file)

    async def read(
        self,
        frozen: Frozen,
        after: Position | None,
        part: Part | None = None,
    ) -> AsyncGenerator[list[SourceItem], None]:
        """The items behind a position that pass the filters, up to `query.top_k`."""
        query, within = self._spec.query, FileRange.of(part, frozen)
        start = Cursor.after(after) if after else Cursor(*astuple(within.start))
        blocks = FrozenBlocks(frozen, self._local, self._pages, within if part else None)
        left = None if query.top_k is None else query.top_k - start.ordinal
        ended = left is not None and left <= 0
        self._ignored = IgnoredBytes(frozen, self._pages)
        await self._ignored.load(within.start.file, start.file)
        await blocks.verify(start.file, None if ended else first_byte(frozen[start.file], start.offset))
        if ended:
            self._touched = len(blocks.touched)
            return
        async with aclosing(self._items(frozen, start, query.filters, blocks, within)) as batches:
            async for batch in batches:
                if left is not None and len(batch) >= left:
                    yield batch[:left]
                    await self._end_file(frozen, blocks, batch[left - 1].position[0])
                    break
                left = None if left is None else left - len(batch)
                yield batch
        await blocks.end()
        self._touched = len(blocks.touched)

    async def read_rendered(
        self, frozen: Frozen, after: Position | None, part: Part | None, render: Render
    ) -> AsyncGenerator[list[AnyItem], None]:
        """Implements `RenderingSource`."""
        self._render = render
        try:
            async with aclosing(self.read(frozen, after, part)) as batches:
                async for batch in batches:
                    # Without a renderer the items are SourceItems only, as the type of `read` says.
                    yield cast("list[AnyItem]", batch)
        finally:
            self._render = None

    async def _end_file(self, frozen: Frozen, blocks: FrozenBlocks, index: int) -> None:
        if not is_remote(frozen[index]["path"]):
            await blocks.end_file(index)

    @asynccontextmanager
    async def _unchanged(
        self, frozen: Frozen, blocks: FrozenBlocks | None, index: int
    ) -> AsyncIterator[None]:
        """A file that changed behind the reader may look damaged: that it changed is the reason then."""
        try:
            yield
        except JobFailed as error:
            if blocks is not None and error.code is FailureCode.SOURCE_INVALID:
                await self._end_file(frozen, blocks, index)
                await blocks.end()
            raise

    def progress(self, frozen: Frozen, position: Position | None, part: Part | None = None) -> float:
        """The share of the bytes; in a compressed file it is estimated from its expansion so far."""
        if position is None:
            return 0.0
        if self._sizes is None or self._sizes.frozen is not frozen:
            self._sizes = FileSizes(frozen)
        cursor = Cursor.after(position)
        point = CutPoint(cursor.file, 0, int(cursor.offset / self._expansion))
        return self._sizes.share(FileRange.of(part, frozen), point)

    def findings(self, frozen: Frozen) -> Findings:
        """Local files are proven by their digests, objects by the ETag where the store gives one."""
        found = Findings()
        for file in frozen:
            if not is_remote(file["path"]):
                found.note("files", Level.PROVEN, _DIGESTS)
            elif file["version"]:
                found.note("s3", Level.PROVEN, _ETAGS)
            else:
                found.note("s3", Level.COUNTED, _NO_ETAGS)
        # A single file is as it was read when the read ended, whatever it was when the job was planned.
        if self._touched and sum(not is_remote(file["path"]) for file in frozen) > 1:
            found.note("files", Level.COUNTED, _TOUCHED.format(self._touched))
        if self._ignored is not None:
            found.ignore(self._ignored.files, self._ignored.bytes, self._ignored.first)
        return found

    async def _items(
        self,
        frozen: Frozen,
        start: Cursor,
        filters: Mapping[str, Any],
        blocks: FrozenBlocks | None,
        within: FileRange,
    ) -> AsyncGenerator[list[SourceItem], None]:
        """The items from a cursor to the end of a range.

        Local files are read from `blocks`, or as they are when it is None.
        """
        reading = Reading(
            self._spec.max_document_bytes,
            filters,
            self._source.allow_empty,
            field_names(self._source),
            self._memory,
            # What is sampled is not rendered: its fields decide the columns.
            self._render if blocks is not None else None,
            self._spec.query.top_k is None,
        )
        files, top_k = frozen[start.file : within.files], self._spec.query.top_k
        async with (
            open_reading(files, reading, top_k, self._processes) as read_pieces,
            aclosing(self._read_files(frozen, start, reading, blocks, within, read_pieces)) as batches,
        ):
            async for batch in batches:
                yield batch

    async def _read_files(
        self,
        frozen: Frozen,
        start: Cursor,
        reading: Reading,
        blocks: FrozenBlocks | None,
        within: FileRange,
        read_pieces: ReadPieces | None,
    ) -> AsyncGenerator[list[SourceItem], None]:
        ordinal = start.ordinal
        for index in range(start.file, within.files):
            file = dict(frozen[index])
            begin = start if index == start.file else Cursor(index, ordinal=ordinal)
            reader: FileReader | TableReader
            if format_of(file).records in TABLES:
                reader = TableReader(file, begin, reading, self._copies)
            else:
                reader = FileReader(file, begin, reading)
            location = self._location(file["path"])
            if blocks is None or is_remote(file["path"]):
                stream = partial(location.stream, file)
            else:
                stream = partial(blocks.stream, index)
            bounded = within.bounded(stream, file["path"], index, begin.line)
            if blocks is None and isinstance(reader, TableReader):
                found = reader.sample(stream, partial(location.open, file))
            elif isinstance(reader, TableReader):
                found = reader.batches(bounded)
            else:
                found = reader.batches(bounded, read_pieces)
            async with self._unchanged(frozen, blocks, index), aclosing(found) as batches:
                async for batch in batches:
                    self._expansion = reader.expansion
                    ordinal = batch[-1].position[-1]
                    yield cast("list[SourceItem]", batch)
            if blocks is not None:
                await self._end_file(frozen, blocks, index)
                if self._ignored is not None:
                    await self._ignored.add(index, reader.ignored)
