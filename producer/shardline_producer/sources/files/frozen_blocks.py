"""The digests of the blocks of a job's local files, in create-only pages outside of the dataset.

Size and time of a file do not show that its bytes are those of an earlier read: a file that changed and was
put back may have both. So the sha256 of each block is stored before a row of the block is parsed, and each
block is compared with it before it is parsed. A read that continues, in whatever process, reads the same
bytes or fails. The checkpoint cannot hold the digests: a `run` that was killed has none.

The first blocks that were hashed for a page are held until they are parsed: half of a file of up to 200 MiB
is read and hashed once.
"""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from itertools import accumulate
from typing import Any

import orjson
from pydantic import TypeAdapter

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.job.stored_json import read_stored
from shardline_common.runtime.threads import run_in_thread
from shardline_common.runtime.waits import log_wait
from shardline_producer.sources.files.file_errors import SUBMIT_NEW_JOB, source_changed
from shardline_producer.sources.files.file_locations import is_remote
from shardline_producer.sources.files.file_ranges import FileRange
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import Frozen, PlanPages
from shardline_producer.sources.stored_pages import page_name, read_page

# The page of a terabyte has 17 KB, and there are 4,000 of them.
_BLOCK = 1 << 20
_FIRST_PAGE, _LARGEST_PAGE = 6, 256
# A page is stored before its blocks are parsed, which takes a request. So pages grow with the file, by this
# share of it.
_GROWTH = 32
# Blocks of a page that are held in memory. The rest of the page is read and hashed once more.
_HELD_BLOCKS = 3
# Small files have a block each.
_MOST_DIGESTS = 4096
# Small files are checked together, because each check takes a thread.
_ENDED_BLOCKS = 64
_RESTORE = "restore this object below _plans/ and retry the job, or submit a new job"


@dataclass(frozen=True, slots=True)
class DigestPage:
    """The digests of the blocks `first`, `first` + 1 and so on, over all local files in the plan's order.

    `touched` are the indexes of files whose change time was not the planned one when they were hashed.
    """

    first: int
    digests: Sequence[str]
    touched: Sequence[int] = ()

    @property
    def next(self) -> int:
        """The number of blocks up to the end of this page."""
        return self.first + len(self.digests)

    def encode(self) -> bytes:
        """The page as JSON."""
        return orjson.dumps(self)

    @classmethod
    def decode(cls, data: bytes, name: str) -> "DigestPage":
        """The page of `encode`, which is stored under `name`.

        Raises:
            JobFailed: the bytes are no such page (`dataset_damaged`).
        """
        page = read_stored(_reader(), data, f"the page {name}", _RESTORE)
        if name.rpartition("/")[2] != page_name(page.first) or not page.digests:
            raise JobFailed(
                FailureCode.DATASET_DAMAGED,
                f"the page {name} begins with block {page.first} and has {len(page.digests)} digests",
                hint=_RESTORE,
            )
        return page


class FrozenBlocks:
    """The blocks of the local files of a plan. Remote files have none: their version is that of the content.

    Each range of the plan has pages of its own, which begin with its first block: no slice hashes what lies
    before it. A block with a cut inside of it is in the pages of both. `within` is None for all files.

    `touched` are the files of the pages that were used so far, as in `DigestPage`.
    """

    def __init__(
        self, frozen: Frozen, location: LocalFiles, pages: PlanPages, within: FileRange | None = None
    ) -> None:
        self._frozen = frozen
        self._location = location
        self._pages = pages
        counts = (0 if is_remote(file["path"]) else -(-file["size"] // _BLOCK) for file in frozen)
        # The number of the first block of each file, and at the end the number of blocks.
        self._first = [0, *accumulate(counts)]
        # A folder of pages is outside of the dataset, and remains when that is removed by hand. Each plan has
        # its own, or a new plan would be compared with the files of the old one.
        plan: list[Any] = [dict(file) for file in frozen]
        # The first block of the range, and the one behind its last.
        self._start, self._end = 0, self._first[-1]
        if within is not None:
            plan.append(within.to_json())
            self._start = self._first[within.start.file] + within.start.offset // _BLOCK
            self._end = self._first[within.end.file] + -(-within.end.offset // _BLOCK)
        self._folder = f"digests-{sha256(orjson.dumps(plan, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]}"
        self._names: list[str] | None = None
        self._page = DigestPage(self._start, ())
        self._compared = 0
        # The first blocks of the page that was hashed last, by number, which equal their stored digests.
        self._held: dict[int, bytes] = {}
        # File -> the end of its blocks that were read.
        self._ended: dict[int, int] = {}
        self.touched: set[int] = set()

    async def stream(self, index: int, offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a file from an offset on, each block only when it has the stored digest.

        Raises:
            JobFailed, SourceUnavailable: as `FileLocation.stream`, and `source_changed` for other bytes.
        """
        first, skip = self._first[index] + offset // _BLOCK, offset % _BLOCK
        last = self._end if self._end < self._first[index + 1] else None
        async with aclosing(self._equal_blocks(index, first, last)) as blocks:
            async for block in blocks:
                self._compared = first = first + 1
                if len(block) > skip:
                    yield block[skip:]
                skip = 0

    async def verify(self, index: int, offset: int | None) -> None:
        """Compare what was read before: all blocks before a file, and of it those before `offset`.

        None: all blocks of the file that have a digest.

        Raises:
            JobFailed: the bytes are others (`source_changed`), or as `FileLocation.stream`.
            SourceUnavailable: as `FileLocation.stream`.
        """
        if offset is None:
            end = min(await self._stored_end(), self._first[index + 1])
        else:
            end = min(self._first[index] + offset // _BLOCK, self._first[index + 1])
        done = 0
        with log_wait(
            "the files that were read before, which are compared", lambda: f"{done:,} of {end:,} MiB"
        ):
            for number in range(index + 1):
                first, last = self._first_block(number), min(self._first[number + 1], end)
                if first < last:
                    async with aclosing(self._equal_blocks(number, first, last)) as blocks:
                        async for _ in blocks:
                            done += 1
        self._compared = end

    async def end_file(self, index: int) -> None:
        """Check a file behind the last byte that is read of it, at the latest in `end`. Raises as `end`."""
        end = min(self._compared, self._first[index + 1])
        self._ended[index] = end
        if sum(last - self._first_block(ended) for ended, last in self._ended.items()) >= _ENDED_BLOCKS:
            await self.end()

    def _first_block(self, index: int) -> int:
        """The first block of a file that is in the range."""
        return max(self._start, self._first[index])

    async def end(self) -> None:
        """Check the files that ended.

        When the change time of a file moved since the plan, the blocks that were read are compared once more:
        a file whose first blocks changed behind the reader was never as it was read.

        Raises: as `verify`.
        """
        files = [self._frozen[index] for index in self._ended]
        with _was_read():
            moved = {file["path"] for file in await self._location.check(files)} if files else ()
        for index, end in self._ended.items():
            if self._frozen[index]["path"] in moved:
                async with aclosing(self._equal_blocks(index, self._first_block(index), end)) as blocks:
                    async for _ in blocks:
                        pass
        self._ended.clear()

    async def _equal_blocks(
        self, index: int, first: int, last: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The blocks of a file that begin with `first`, up to `last`, while they have their digests."""
        number, end = first, self._first[index + 1] if last is None else last
        if number == end and last is None:
            # Without a block to read, it may still have more bytes than planned.
            async with aclosing(self._blocks(index, self._frozen[index]["size"])) as blocks:
                async for _ in blocks:
                    pass
        while number < end:
            await self._digest(number)
            if (held := self._held.pop(number, None)) is not None:
                yield held
                number += 1
                continue
            # Not to the end of the file: behind this page, the next one may be hashed and held.
            known = min(end, self._page.next)
            async with aclosing(self._read_equal(index, number, known)) as blocks:
                async for block in blocks:
                    yield block
            number = known

    async def _read_equal(self, index: int, first: int, last: int) -> AsyncGenerator[bytes, None]:
        """The blocks of a file from `first` up to `last`, read now, and compared with the page in use."""
        number = first
        async with aclosing(self._blocks(index, (first - self._first[index]) * _BLOCK)) as blocks:
            with _was_read():
                async for block, found in blocks:
                    if found != await self._digest(number):
                        start = (number - self._first[index]) * _BLOCK
                        raise source_changed(
                            self._frozen[index]["path"],
                            f"its bytes {start:,} to {start + len(block):,} are not those that were read",
                        )
                    yield block
                    number += 1
                    if number == last:
                        return

    async def _blocks(self, index: int, offset: int) -> AsyncGenerator[tuple[bytes, str], None]:
        """The blocks of a file from the start of one on, with their digests as they are now."""
        file, held = dict(self._frozen[index]), bytearray()
        async with aclosing(self._location.hashed(file, offset)) as chunks:
            async for chunk, digest in chunks:
                offset += len(chunk)
                if not held and (len(chunk) == _BLOCK or (len(chunk) < _BLOCK and offset == file["size"])):
                    yield chunk, digest
                    continue
                # A read that ended early: the rest of the block comes with the next ones.
                held += chunk
                while len(held) >= _BLOCK:
                    block = bytes(held[:_BLOCK])
                    del held[:_BLOCK]
                    yield block, await run_in_thread(partial(_sha256, block))
        if held:
            last = bytes(held)
            yield last, await run_in_thread(partial(_sha256, last))

    async def _digest(self, number: int) -> str:
        """The stored digest of a block. Where none is stored, further blocks are hashed and stored first."""
        if not self._start <= number < self._end:
            # No page would ever hold it.
            raise AssertionError(f"block {number} is not one of {self._start} to {self._end}")
        while not self._page.first <= number < self._page.next:
            names = await self._load_names()
            known = bisect_right(names, self._name(number))
            # The page in use is not read again to learn that the block is behind it.
            if known and not (self._page.digests and names[known - 1] == self._name(self._page.first)):
                self._use(await self._stored(names[known - 1]))
            if number < self._page.next:
                continue
            if known < len(names):
                raise _lost(self._name(self._page.next))
            page, hashed = await self._hash_page(self._page.next)
            name = self._name(page.first)
            body = await self._pages.create_or_get(name, page.encode())
            names.append(name)
            if body == page.encode():
                self._held = hashed
                self._use(page)
            else:
                # Of another process that reads the job: what it has hashed decides.
                self._use(await self._stored(name))
        return self._page.digests[number - self._page.first]

    def _use(self, page: DigestPage) -> None:
        self._page = page
        self.touched.update(page.touched)

    async def _load_names(self) -> list[str]:
        if self._names is None:
            self._names = await self._pages.names(self._folder)
        return self._names

    def _name(self, first: int) -> str:
        return f"{self._folder}/{page_name(first)}"

    async def _stored_end(self) -> int:
        names = await self._load_names()
        return (await self._stored(names[-1])).next if names else 0

    async def _stored(self, name: str) -> DigestPage:
        return await read_page(self._pages, name, DigestPage.decode, _lost)

    async def _hash_page(self, first: int) -> tuple[DigestPage, dict[int, bytes]]:
        """A page of digests from a block on, of files as they are now, and its first blocks by number.

        A file that cannot be read ends it: the job may end before it comes to that file.
        """
        size = min(_LARGEST_PAGE, max(_FIRST_PAGE, (first - self._start) // _GROWTH)) * _BLOCK
        digests, files, done, held = list[str](), list[int](), 0, dict[int, bytes]()
        while done < size and len(digests) < _MOST_DIGESTS and first + len(digests) < self._end:
            number = first + len(digests)
            index = bisect_right(self._first, number) - 1
            offset = (number - self._first[index]) * _BLOCK
            try:
                async with aclosing(self._blocks(index, offset)) as blocks:
                    async for block, digest in blocks:
                        if done < _HELD_BLOCKS * _BLOCK:
                            held[first + len(digests)] = block
                        digests.append(digest)
                        done += len(block)
                        if done >= size or first + len(digests) == self._end:
                            break
            except (JobFailed, SourceUnavailable) as error:
                if not digests:
                    if offset and isinstance(error, JobFailed):
                        _hint_new_job(error)
                    raise
                break
            files.append(index)
        with _was_read():
            moved = await self._location.check([self._frozen[index] for index in files])
        paths = {file["path"] for file in moved}
        touched = [index for index in files if self._frozen[index]["path"] in paths]
        return DigestPage(first, digests, touched), held


def _lost(name: str) -> JobFailed:
    return JobFailed(
        FailureCode.OBJECT_LOST,
        f"the page {name} with digests of the files is not in the store, and a later one is",
        hint=_RESTORE,
    )


@cache
def _reader() -> TypeAdapter[DigestPage]:
    return TypeAdapter(DigestPage)


def _sha256(block: bytes) -> str:
    return sha256(block).hexdigest()


@contextmanager
def _was_read() -> Iterator[None]:
    try:
        yield
    except JobFailed as error:
        _hint_new_job(error)
        raise


def _hint_new_job(error: JobFailed) -> None:
    # Bytes of the changed file may be in the dataset: with the old file a retry could not continue.
    if error.code is FailureCode.SOURCE_CHANGED:
        error.hint = SUBMIT_NEW_JOB
