"""load: the rows of a finished dataset for training, one part for each rank, continued exactly."""

import os
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import orjson

from shardline.api.inputs import settings_of
from shardline.api.list_reader import ListReader
from shardline.services.finished import open_published
from shardline.services.finished_rows import row_lines
from shardline.services.wiring.stores import open_store_at
from shardline_common.dataset.published import PublishedDataset, Shard
from shardline_common.dataset.row_ranges import part_of, shard_rows
from shardline_common.errors import UsageError

if TYPE_CHECKING:
    from shardline.api.torch_rows import TorchRows

_STATE_VERSION = 1


def load(
    uri: str | os.PathLike[str],
    *,
    split: str = "train",
    rank: int = 0,
    world_size: int = 1,
    settings: Mapping[str, object] | None = None,
) -> "LoadedRows":
    """Open a split of a finished dataset for training: an iterable of rows, in the order of the dataset.

    A rank reads its part of the rows, in one piece: all ranks together read each row once, and no rank has
    more than one row more than another. Where the number of shards divides by `world_size`, the parts of an
    assembled dataset are whole shards. Every shard is compared with its sha256 when it has been read.

    It reads on a thread of its own, so it works inside an event loop too.

    Args:
        uri: the dataset's folder: a directory, also one that `shardline pull` made, or `s3://bucket/prefix/…`.
        split: the split.
        rank: the number of this reader, from 0 on.
        world_size: how many readers there are.
        settings: settings by name, used before the environment, .env and shardline.toml.

    Raises:
        UsageError: there is no finished dataset or no such split, or a number or setting is wrong.
        JobFailed: the manifest is damaged; while reading: a shard is.
        ServiceUnavailable: the store cannot be reached.
    """
    if not 0 <= rank < world_size:
        raise UsageError(
            f"rank {rank} of {world_size} does not exist", hint=f"ranks are 0 to {world_size - 1}"
        )
    address = os.fspath(uri)
    dataset = _read_dataset(address, settings)
    shards = dataset.splits.get(split)
    if shards is None:
        names = ", ".join(dataset.splits) or "none"
        raise UsageError(f"{address} has no split {split!r}", hint=f"its splits are: {names}")
    part = part_of(sum(shard.rows for shard in shards), rank, world_size)
    digest, compression = dataset.manifest.digest, dataset.compression
    return LoadedRows(_Source(address, settings, digest, split, compression, shards), *part)


def _read_dataset(uri: str, settings: Mapping[str, object] | None) -> PublishedDataset:
    async def read() -> AsyncGenerator[list[PublishedDataset], None]:
        async with open_published(uri, settings_of(settings)) as (_, dataset):
            yield [dataset]

    # On a thread, because the caller may have a running event loop.
    with closing(ListReader(read()).lists()) as lists:
        ((dataset,),) = lists
    return dataset


@dataclass(frozen=True, slots=True)
class _Source:
    """Where rows come from. It can be pickled, for the processes of a DataLoader."""

    uri: str
    settings: Mapping[str, object] | None
    digest: str
    split: str
    compression: str
    shards: Sequence[Shard]

    async def lines(self, first: int, after: int) -> AsyncGenerator[list[bytes], None]:
        """The lines of rows [first, after) of the split, in lists."""
        async with open_store_at(self.uri, settings_of(self.settings)) as store:
            ranges = shard_rows(self.shards, first, after)
            async with aclosing(row_lines(store, self.compression, ranges)) as lists:
                async for lines in lists:
                    yield lines


class LoadedRows:
    """The rows [first, after) of a split. Each iteration is an epoch: all of them, in the same order.

    `state_dict` says where the iteration is; after `load_state_dict` the next iteration begins there. The
    object can be pickled.
    """

    def __init__(self, source: _Source, first: int, after: int) -> None:
        self._source = source
        self.first = first
        self.after = after
        self._done = 0
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The number of the epoch of the next row, from 0 on."""
        self._end_epoch()
        return self._epoch

    @property
    def digest(self) -> str:
        """The digest of the dataset."""
        return self._source.digest

    @property
    def split(self) -> str:
        """The split."""
        return self._source.split

    def __len__(self) -> int:
        """How many rows an epoch has."""
        return self.after - self.first

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows of the epoch that were not returned yet, as dictionaries."""
        return self._iterate()

    def part(self, number: int, count: int) -> "LoadedRows":
        """Part `number` of `count` of these rows: for the processes of one rank."""
        first, after = part_of(len(self), number, count)
        return LoadedRows(self._source, self.first + first, self.first + after)

    def torch(self) -> "TorchRows":
        """These rows as a `torch.utils.data.IterableDataset`, which divides them among the loader's workers.

        Raises:
            UsageError: the package torch is missing.
        """
        if find_spec("torch") is None:
            raise UsageError(
                "an IterableDataset needs the package torch", hint="install it: pip install torch"
            )
        from shardline.api.torch_rows import TorchRows  # noqa: PLC0415 - importing torch takes seconds

        return TorchRows(self)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is: how many rows of which epoch were returned."""
        return {**self._identity(), "epoch": self.epoch, "rows": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was called.

        Raises:
            UsageError: it is of another dataset, split or part, or no state.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise UsageError(
                    f"the state is of another {name}: it has {state.get(name)!r}, this has {value!r}",
                    hint="load the same dataset and split with the same rank and world_size",
                )
        epoch, rows = state.get("epoch"), state.get("rows")
        if not (isinstance(epoch, int) and isinstance(rows, int) and epoch >= 0 and 0 <= rows <= len(self)):
            raise UsageError(f"the state names row {rows!r} of epoch {epoch!r}, which does not exist")
        self._epoch, self._done = epoch, rows

    def _identity(self) -> dict[str, Any]:
        return {
            "version": _STATE_VERSION,
            "digest": self.digest,
            "split": self.split,
            "part": [self.first, self.after],
        }

    def _iterate(self) -> Generator[dict[str, Any], None, None]:
        self._end_epoch()
        loads = orjson.loads
        reader = ListReader(self._source.lines(self.first + self._done, self.after))
        with closing(reader.lists()) as lists:
            for lines in lists:
                for line in lines:
                    self._done += 1
                    yield loads(line)
        # `epoch` may have been asked for behind the last row, and then has begun the next one.
        if self._done == len(self):
            self._done, self._epoch = 0, self._epoch + 1

    def _end_epoch(self) -> None:
        if self._done and self._done == len(self):
            self._done, self._epoch = 0, self._epoch + 1
