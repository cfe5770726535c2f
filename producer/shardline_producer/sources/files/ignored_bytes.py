"""The bytes of compressed files behind the end of their data, which belong to nothing and were not read.

They are known when a file was read to its end, and a job that continues does not read that file again. So
each count is the name of an empty page outside of the dataset, beside the digests of blocks.
"""

from hashlib import sha256

import orjson

from shardline_producer.sources.source import Frozen, PlanPages


class IgnoredBytes:
    """The counts of a job's files, by their index in the plan."""

    def __init__(self, frozen: Frozen, pages: PlanPages) -> None:
        plan = sha256(orjson.dumps([dict(file) for file in frozen], option=orjson.OPT_SORT_KEYS))
        self._folder = f"ignored-{plan.hexdigest()[:16]}"
        self._frozen = frozen
        self._pages = pages
        self._counts = dict[int, int]()

    async def load(self, first: int, end: int) -> None:
        """Load the counts of the files from `first` to before `end`. Raises StoreUnavailable."""
        for name in await self._pages.names(self._folder) if first < end else ():
            index, count = name.rpartition("/")[2].removesuffix(".json").split("-")
            if first <= int(index) < end:
                self._counts[int(index)] = int(count)

    async def add(self, index: int, count: int) -> None:
        """Store the count of a file that was read to its end. Raises StoreUnavailable."""
        if count:
            await self._pages.create_or_get(f"{self._folder}/{index:012d}-{count}.json", b"{}")
            self._counts[index] = count

    @property
    def files(self) -> int:
        """The number of files."""
        return len(self._counts)

    @property
    def bytes(self) -> int:
        """The number of bytes."""
        return sum(self._counts.values())

    @property
    def first(self) -> str:
        """The first of the files in the plan's order; "" without one."""
        return self._frozen[min(self._counts)]["path"] if self._counts else ""
