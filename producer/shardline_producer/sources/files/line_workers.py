"""Lines of files, parsed and rendered by other processes, in the order of the file."""

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, cast

from shardline_common.runtime.allocator import keep_freed_memory
from shardline_common.runtime.processes import can_start_processes, open_processes, result_of
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.documents import FieldNames
from shardline_producer.sources.files.file_reader import Cursor, FileReader, Reading, ReadPieces
from shardline_producer.sources.files.line_pieces import Piece
from shardline_producer.sources.files.lines import Line
from shardline_producer.sources.source import (
    AnyItem,
    BlockRendering,
    Render,
    RenderedBlock,
    RenderedItem,
    SourceItem,
)

_log = logging.getLogger(__name__)
# Of each process: one piece that it reads, and one that is ready for it.
_PIECES_AHEAD = 2
_BATCH_ITEMS = 1000

Packed = tuple[Any, ...] | SourceItem | RenderedBlock
"""An item between two processes: of a RenderedItem the fields, which are packed in half of the time."""


@dataclass(slots=True)
class _Task:
    """A piece that is read: by a process, or when `future` is None, here when its turn comes."""

    piece: Piece | Line
    future: Future[list[Packed]] | None


class LineWorkers:
    """The processes of an executor, which read pieces of files by the rules of `reading`.

    When one of them dies, or there is no executor, the pieces are read in this process.
    """

    def __init__(self, executor: ProcessPoolExecutor | None, processes: int, reading: Reading) -> None:
        self._executor = executor
        self._processes = processes
        self._reading = reading

    async def read(
        self, file: Mapping[str, Any], start: Cursor, pieces: AsyncGenerator[Piece | Line, None]
    ) -> AsyncGenerator[list[AnyItem], None]:
        """Batches of the items of a file behind a cursor, in the order of the file."""
        tasks, ordinal, failure = deque[_Task](), start.ordinal, None
        more, ahead = True, _PIECES_AHEAD * self._processes
        async with aclosing(pieces):
            try:
                while more or tasks:
                    try:
                        piece = await anext(pieces) if more else None
                    except StopAsyncIteration:
                        more, piece = False, None
                    except Exception as error:  # noqa: BLE001 - raised again behind what was read before it
                        # A read that fails again and again must not lose each time what it read.
                        more, piece, failure = False, None, error
                    if piece is not None:
                        tasks.append(_Task(piece, self._submit(file, start.file, piece)))
                    while tasks and (not more or len(tasks) > ahead or _is_done(tasks[0])):
                        found = await self._found(file, start.file, tasks.popleft())
                        numbered, ordinal = _numbered(found, ordinal)
                        for first in range(0, len(numbered), _BATCH_ITEMS):
                            yield numbered[first : first + _BATCH_ITEMS]
            finally:
                for task in tasks:
                    if task.future is not None:
                        task.future.cancel()
        if failure is not None:
            raise failure

    def _submit(
        self, file: Mapping[str, Any], index: int, piece: Piece | Line
    ) -> Future[list[Packed]] | None:
        if self._executor is None or isinstance(piece, Line):
            return None
        try:
            return self._executor.submit(_read_piece, file, index, piece)
        except (BrokenProcessPool, OSError) as error:
            self._give_up(error)
            return None

    async def _found(self, file: Mapping[str, Any], index: int, task: _Task) -> list[Packed]:
        if task.future is not None and self._executor is not None:
            try:
                return await result_of(self._executor, task.future)
            except BrokenProcessPool as error:
                self._give_up(error)
        return await run_in_thread(partial(_read, self._reading, file, index, task.piece))

    def _give_up(self, error: Exception) -> None:
        self._executor = None
        _log.warning("a process that parses was killed; this one parses the rest: %s", error)


@asynccontextmanager
async def open_line_workers(processes: int, reading: Reading) -> AsyncIterator[ReadPieces]:
    """What reads pieces of files by processes, which have ended at the end."""
    rules = reading.max_record_bytes, dict(reading.filters), reading.names, reading.render, reading.packs
    async with AsyncExitStack() as stack:
        executor = None
        if can_start_processes():
            try:
                executor = await stack.enter_async_context(open_processes(processes, _start, *rules))
            except (OSError, ImportError) as error:
                # Such as a machine without semaphores between processes, or a limit of processes.
                _log.warning("no process that parses can be started; this one parses: %s", error)
        yield LineWorkers(executor, processes, reading).read


def _is_done(task: _Task) -> bool:
    return task.future is not None and task.future.done()


def _numbered(found: Sequence[Packed], before: int) -> tuple[list[AnyItem], int]:
    """The items of a piece with their ordinals, which count all items of the source, and the last one."""
    items: list[AnyItem] = []
    ordinal = before
    for item in found:
        if isinstance(item, RenderedBlock):
            ordinal += item.count
            items.append(replace(item, position=(*item.position[:3], ordinal), base=before))
            continue
        ordinal += 1
        if isinstance(item, SourceItem):
            item.position = (*item.position[:3], ordinal)
            items.append(item)
        else:
            (index, number, end, _), *rest = item
            items.append(RenderedItem((index, number, end, ordinal), *rest))
    return items, ordinal


_readings: list[Reading] = []


def _start(
    max_record_bytes: int, filters: dict[str, Any], names: FieldNames, render: Render, packs: bool
) -> None:
    """The start of a process: the rules of the job are sent once. What it reads is decompressed."""
    keep_freed_memory()
    _readings[:] = [
        Reading(max_record_bytes, filters, allow_empty=True, names=names, render=render, packs=packs)
    ]


def _read_piece(file: Mapping[str, Any], index: int, piece: Piece) -> list[Packed]:
    return _read(_readings[0], file, index, piece)


def _read(reading: Reading, file: Mapping[str, Any], index: int, piece: Piece | Line) -> list[Packed]:
    if isinstance(piece, Line):
        reader = FileReader(file, Cursor(index), reading)
        found = reader.parse([piece])
    else:
        reader = FileReader(file, Cursor(index, piece.number, piece.offset), reading)
        found = reader.parse_text(piece.text)
    rendering: object = reading.render
    packed: list[Packed] = []
    for kind, run in groupby(found, type):
        some = list(run)
        if kind is RenderedItem and reading.packs and isinstance(rendering, BlockRendering):
            block = rendering.pack(cast("list[RenderedItem]", some))
            if block is not None:
                packed.append(_joined(block))
                continue
        packed += [tuple(item) if isinstance(item, RenderedItem) else item for item in some]
    return packed


def _joined(block: RenderedBlock) -> RenderedBlock:
    """The block with one value for each body: a thousand are packed for a process in far more time."""
    return replace(block, parts=[replace(part, body=(b"".join(part.body),)) for part in block.parts])
