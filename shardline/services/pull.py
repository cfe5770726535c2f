"""pull: copies the shards of a finished dataset to a local folder, proven, and continued after a stop."""

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from shardline.services.finished import open_published
from shardline.services.pull_files import JoinedFile, PartFile, has_bytes, locked_folder
from shardline_common.dataset.published import CARD, MANIFEST, SUCCESS, PublishedDataset, Shard
from shardline_common.dataset.read import ObjectReader, StoredBytes, read_hashes
from shardline_common.dataset.row_ranges import part_of, shard_rows
from shardline_common.dataset.success import hash_of
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing, UsageError
from shardline_common.job.names import attempt_of_outcome
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.atomic_file import AsyncAtomicFile
from shardline_common.runtime.read_again import read_again
from shardline_common.runtime.tasks import gather_limited
from shardline_common.runtime.threads import run_in_thread
from shardline_common.settings.load import Settings
from shardline_common.storage.object_keys import checked_key

_log = logging.getLogger(__name__)
_AT_ONCE = 8
OnBytes = Callable[[int, int], None]
"""Called with the bytes that are there, and those of the whole pull."""


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What is pulled.

    Args:
        split: the split; None: all of them.
        single_file: one plain JSONL file for each split, instead of the shards.
        part: number and count: only the shards with rows of this part (`part_of`); None: all.
        all_objects: also what only `verify` and `explain` read, so that the copy can be verified.
    """

    split: str | None = None
    single_file: bool = False
    part: tuple[int, int] | None = None
    all_objects: bool = False

    def __post_init__(self) -> None:
        number, count = self.part or (0, 1)
        if not 0 <= number < count:
            raise UsageError(
                f"part {number}/{count} does not exist", hint=f"parts are 0/{count} to {count - 1}/{count}"
            )
        if self.all_objects and (self.split is not None or self.single_file or self.part is not None):
            raise UsageError(
                "a part of a dataset cannot be verified", hint="pull all splits and shards of it"
            )

    @property
    def is_whole(self) -> bool:
        """Whether it has every shard as it is."""
        return self.split is None and self.part is None and not self.single_file


@dataclass(slots=True)
class Pulled:
    """The result: the folder, its files with rows, and how many bytes came and were there before."""

    folder: Path
    digest: str
    rows: int = 0
    files: list[Path] = field(default_factory=list)
    fetched_bytes: int = 0
    kept_bytes: int = 0


async def pull_dataset(
    uri: str, folder: Path, settings: Settings, request: PullRequest, on_bytes: OnBytes = lambda *_: None
) -> Pulled:
    """Copy a finished dataset, or a part of it, to a folder. What is there with the right bytes is kept.

    1. Read the manifest that `_SUCCESS` names.
    2. Lock the folder. Another pull of the same dataset is waited for, for its files are then there.
    3. Fetch what is missing, several objects at once; each is compared with the sha256 of the manifest.
    4. Write card and manifest, and `_SUCCESS` last.

    Raises:
        UsageError: the dataset or the split is not there, or the folder cannot be written.
        JobFailed: an object is missing or damaged.
        StoreUnavailable: the store cannot be read now.
    """
    async with open_published(uri, settings) as (store, dataset):
        splits = _chosen(uri, dataset, request)
        digest = dataset.manifest.digest
        wait = partial(_log.warning, "another pull writes to %s; waiting for it", folder)
        lock = locked_folder(folder, dataset.body, wait)
        await run_in_thread(lock.__enter__, lambda _: lock.__exit__(None, None, None))
        try:
            pull = _Pull(store, dataset, Pulled(folder, digest), on_bytes)
            if request.single_file:
                await pull.join(splits)
            else:
                await pull.copy(splits, all_objects=request.all_objects, whole=request.is_whole)
        finally:
            lock.__exit__(None, None, None)
        return pull.pulled


def _chosen(uri: str, dataset: PublishedDataset, request: PullRequest) -> dict[str, Sequence[Shard]]:
    splits: dict[str, Sequence[Shard]] = dict(dataset.splits)
    if request.split is not None:
        if request.split not in splits:
            names = ", ".join(splits) or "none"
            raise UsageError(f"{uri} has no split {request.split!r}", hint=f"its splits are: {names}")
        splits = {request.split: splits[request.split]}
    if request.part is not None:
        for name, shards in splits.items():
            first, after = part_of(sum(shard.rows for shard in shards), *request.part)
            splits[name] = [one.shard for one in shard_rows(shards, first, after)]
    return splits


class _Pull:
    def __init__(
        self, store: ObjectStore, dataset: PublishedDataset, pulled: Pulled, on_bytes: OnBytes
    ) -> None:
        self._store = store
        self._dataset = dataset
        self._on_bytes = on_bytes
        self._total = 0
        self.pulled = pulled

    async def copy(self, splits: dict[str, Sequence[Shard]], *, all_objects: bool, whole: bool) -> None:
        """Copy the shards as they are stored."""
        folder, dataset = self.pulled.folder, self._dataset
        shards = [shard for part in splits.values() for shard in part]
        objects = dict(dataset.objects) if all_objects else {}
        objects |= {shard.key: shard.stored for shard in shards if shard.stored is not None}
        unnamed = [shard for shard in shards if shard.stored is None]
        self._total = sum(stored.size for stored in objects.values())
        self._check_space(self._total)
        calls = [partial(self._copy, key, stored) for key, stored in objects.items()]
        calls += [partial(self._copy_unnamed, shard) for shard in unnamed]
        await gather_limited(calls, _AT_ONCE)
        self.pulled.files = [folder / checked_key(shard.key) for shard in shards]
        self.pulled.rows = sum(shard.rows for shard in shards)
        await self._finish(whole=whole, all_objects=all_objects)

    async def join(self, splits: dict[str, Sequence[Shard]]) -> None:
        """Write the rows of each split into one file, without compression."""
        self._total = sum(shard.size for shards in splits.values() for shard in shards)
        self._check_space(self._total)
        for name, shards in splits.items():
            path = self.pulled.folder / f"{checked_key(name)}.jsonl"
            file = await run_in_thread(
                partial(JoinedFile, path, sum(shard.size for shard in shards)), JoinedFile.close
            )
            try:
                starts, start = [], 0
                for shard in shards:
                    starts.append(start)
                    start += shard.size
                calls = [
                    partial(self._place, file, shard, at) for shard, at in zip(shards, starts, strict=True)
                ]
                await gather_limited(calls, _AT_ONCE)
                await run_in_thread(file.commit)
            finally:
                file.close()
            self.pulled.files.append(path)
            self.pulled.rows += sum(shard.rows for shard in shards)

    def _check_space(self, size: int) -> None:
        # What is there is a part of it. So only a disk that could never hold the dataset is refused.
        with suppress(OSError):
            total = shutil.disk_usage(self.pulled.folder).total
            if size > total:
                raise UsageError(
                    f"{self.pulled.folder} is on a disk of {total:,} bytes, the pull has {size:,}",
                    hint="pull a split with --split, or some shards with --shards",
                )

    def _count(self, size: int, *, fetched: bool) -> None:
        if fetched:
            self.pulled.fetched_bytes += size
        else:
            self.pulled.kept_bytes += size
        self._on_bytes(self.pulled.fetched_bytes + self.pulled.kept_bytes, self._total)

    async def _copy(self, key: str, expected: StoredBytes) -> None:
        path = self.pulled.folder / checked_key(key)
        if await run_in_thread(partial(has_bytes, path, expected)):
            self._count(expected.size, fetched=False)
            return
        part = await run_in_thread(partial(PartFile, path, expected), PartFile.close)
        try:
            self._count(part.size, fetched=False)
            await read_again(partial(self._fill, part, key, expected))
            await run_in_thread(part.commit)
        finally:
            part.close()

    async def _fill(self, part: PartFile, key: str, expected: StoredBytes) -> None:
        if part.size < expected.size:
            async with aclosing(self._store.stream(key, offset=part.size)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    await run_in_thread(partial(part.write, chunk))
                    self._count(len(chunk), fetched=True)
                    if part.size > expected.size:
                        break
        if not part.is_whole:
            self._count(-part.size, fetched=True)
            part.reset()
            raise _damaged(self._store, key)

    async def _copy_unnamed(self, shard: Shard) -> None:
        """Copy a shard of a manifest of version 1, which names the sha256 of its rows only."""
        compression = self._dataset.compression
        found, stored = await read_hashes(self._store, shard.key, compression, shard.sha256)
        if found != shard.sha256:
            raise _damaged(self._store, shard.key)
        self._total += stored.size
        await self._copy(shard.key, stored)

    async def _place(self, file: JoinedFile, shard: Shard, start: int) -> None:
        if await run_in_thread(partial(file.hash_of, start, shard.size)) == shard.sha256:
            self._count(shard.size, fetched=False)
            return
        await read_again(partial(self._decode, file, shard, start))

    async def _decode(self, file: JoinedFile, shard: Shard, start: int) -> None:
        reader, size = ObjectReader(self._store, shard.key, self._dataset.compression), 0
        async with aclosing(reader.plain()) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                size += len(piece)
                # The place behind it is that of the next shard.
                if size > shard.size:
                    break
                await run_in_thread(partial(file.write, piece, start + size - len(piece)))
                self._count(len(piece), fetched=True)
        if (size, reader.plain_sha256) != (shard.size, shard.sha256):
            self._count(-min(size, shard.size), fetched=True)
            raise _damaged(self._store, shard.key)

    async def _finish(self, *, whole: bool, all_objects: bool) -> None:
        """Write what says that the folder is a dataset. The card names all splits, so a part has none."""
        folder, hashes = self.pulled.folder, self._dataset.marker.hashes
        names = [CARD] if whole else []
        if all_objects:
            names += [key for key in hashes if attempt_of_outcome(key)]
        for name in names:
            with suppress(ObjectMissing):
                body = await read_again(partial(self._read_named, name, hashes.get(name)))
                await _write(folder / checked_key(name), body)
        await _write(folder / MANIFEST, self._dataset.body)
        await _write(folder / SUCCESS, self._dataset.marker.encode())

    async def _read_named(self, name: str, sha256: str | None) -> bytes:
        body = await self._store.get(name)
        if sha256 not in (None, hash_of(body)):
            raise _damaged(self._store, name)
        return body


async def _write(path: Path, body: bytes) -> None:
    async with AsyncAtomicFile(path) as file:
        await file.write(body)


def _damaged(store: ObjectStore, key: str) -> JobFailed:
    return JobFailed(
        FailureCode.DATASET_DAMAGED,
        f"{key} in {store.uri} has other bytes than its manifest says",
        hint=f"run `shardline verify {store.uri}`; restore the object",
    )
