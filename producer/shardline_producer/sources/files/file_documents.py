"""The source `files`: files in local folders or S3 buckets."""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import astuple, replace
from functools import partial
from posixpath import basename
from typing import Any, cast

from shardline_common.errors import ShardlineError
from shardline_common.job.field_mapping import LINE
from shardline_common.job.findings import Findings, Level
from shardline_common.job.messages import Position
from shardline_common.job.spec import FilesSource, JobSpec
from shardline_common.runtime.paths import shown_path
from shardline_common.runtime.tasks import gather_limited
from shardline_common.runtime.threads import run_in_thread
from shardline_common.runtime.waits import log_wait
from shardline_producer.sources.documents import field_names
from shardline_producer.sources.field_proposals import advice, fields_of
from shardline_producer.sources.files.decoder_memory import DecoderMemory
from shardline_producer.sources.files.decompress import named_compression
from shardline_producer.sources.files.file_cuts import cut_files
from shardline_producer.sources.files.file_errors import OtherEncoding, source_invalid
from shardline_producer.sources.files.file_format import TABLES, format_of, with_format
from shardline_producer.sources.files.file_locations import FileLocation, is_remote
from shardline_producer.sources.files.file_ranges import CutPoint, FileRange, FileSizes
from shardline_producer.sources.files.file_reader import Cursor, FileReader, Reading, ReadPieces, first_byte
from shardline_producer.sources.files.formats import HEAD_BYTES, detect
from shardline_producer.sources.files.frozen_blocks import FrozenBlocks
from shardline_producer.sources.files.ignored_bytes import IgnoredBytes
from shardline_producer.sources.files.line_names import line_names
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.files.path_schemes import plain_path, refuse_unknown_scheme
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

_SHOWN_NAMES = 20
# Each holds up to 256 KiB, and as much again that was decompressed.
_HEADS_AT_ONCE = 16
_SMALL = 1 << 12
_MAPPED = 500
_log = logging.getLogger(__name__)
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
        """The files in the order of the job's paths, those of a pattern by name, each file once.

        A file with several names has the first of them; the others are in `also`.
        """
        files: dict[str, dict[str, Any]] = {}
        patterns: dict[str, str] = {}
        for pattern in map(plain_path, self._source.paths):
            location = self._location(pattern)
            found = await location.find(pattern)
            if not found:
                raise source_invalid(f"no file matches '{shown_path(pattern)}'", location.not_found_hint)
            for file in found:
                identity = [file["path"], *file.pop("identity", ())]
                known = next((files[name] for name in identity if name in files), file)
                files |= dict.fromkeys(identity, known)
                patterns.setdefault(known["path"], pattern)
                # A pattern or a folder may well have what another path names.
                named = len(found) == 1 and basename(pattern) == basename(file["path"])
                name = pattern if named else file["path"]
                if known is not file and name not in (known["path"], *known.get("also", ())):
                    known.setdefault("also", []).append(name)
        unique = list({id(file): file for file in files.values()}.values())
        for sentence in _same_files(unique):
            _log.warning("%s: it is read once", sentence)
        done = 0

        async def planned(file: dict[str, Any], name: str) -> dict[str, Any]:
            nonlocal done
            found = await self._with_format(file, name)
            done += 1
            return found

        calls = [
            partial(planned, file, name) for file, name in zip(unique, line_names(patterns), strict=True)
        ]
        try:
            with log_wait("the first bytes of each file", lambda: f"{done:,} of {len(unique):,} files"):
                return await gather_limited(calls, _HEADS_AT_ONCE)
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

    async def _with_format(self, file: dict[str, Any], name: str) -> dict[str, Any]:
        head = await self._location(file["path"]).head(file, HEAD_BYTES)
        look = partial(detect, file["path"], head, self._source)
        # Of a small file, this takes less time than the change to a thread.
        found = look() if len(head) < _SMALL else await run_in_thread(look)
        if self._source.fields.id == LINE:
            file["name"] = name
        if found.records == "text":
            found = replace(found, options={"id": name})
        return with_format(file, found)

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
        notes = {"same_files": _same_files(frozen), "misnamed": _misnamed(frozen)}
        return DeclaredSource(notes={name: sentences for name, sentences in notes.items() if sentences})

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
            async with aclosing(found) as batches:
                async for batch in batches:
                    self._expansion = reader.expansion
                    ordinal = batch[-1].position[-1]
                    yield cast("list[SourceItem]", batch)
            if blocks is not None:
                await self._end_file(frozen, blocks, index)
                if self._ignored is not None:
                    await self._ignored.add(index, reader.ignored)


def _same_files(frozen: Frozen) -> list[str]:
    """A sentence for each further name of a file."""
    return _shown(
        [
            f"{shown_path(name)} is {shown_path(file['path'])}"
            for file in frozen
            for name in file.get("also", ())
        ],
        "{:,} more names are those of other files",
    )


def _misnamed(frozen: Frozen) -> list[str]:
    """A sentence for each file that is compressed otherwise than its name says."""
    sentences = []
    for file in frozen:
        found, named = format_of(file).compression, named_compression(file["path"])
        if found != named:
            how = "is not compressed" if found == "none" else f"is compressed by {found}"
            sentences.append(f"{shown_path(file['path'])} {how}, other than its name says")
    return _shown(sentences, "{:,} more files are compressed otherwise than their names say")


def _shown(sentences: list[str], rest: str) -> list[str]:
    """The first sentences, and one for what is more than a person reads."""
    more = len(sentences) - _SHOWN_NAMES
    return sentences[:_SHOWN_NAMES] + ([rest.format(more)] if more > 0 else [])
