"""Exports: a finished dataset as one file, made once and kept beside the datasets."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from shardline.gateway.export_formats import ENDING, MEDIA, Format, open_format
from shardline.gateway.problems import Problem
from shardline_common.dataset.read import plain_bytes
from shardline_common.errors import ObjectExists
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.ports.store import ObjectInfo, ObjectStore
from shardline_common.runtime.threads import run_in_thread

_BATCH_BYTES = 4 << 20
# The largest object that one put can make.
_MOST_BYTES = 5 << 30


class Exports:
    """Makes exports. Two requests for the same one wait for one making."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._making: dict[str, asyncio.Lock] = {}

    async def existing(self, spec: JobSpec) -> list[ObjectInfo]:
        """The exports of a dataset that were made so far."""
        return [info async for info in self._store.list(Layout.of(spec).exports)]

    async def make(self, spec: JobSpec, manifest: Mapping[str, Any], name: str, *, metadata: bool) -> str:
        """The key of the export, made now unless it was made before.

        Raises:
            Problem: the format needs a library, or the file would be larger than an object may be.
            StoreUnavailable: try again later.
        """
        tail = "" if metadata else ".text-only"
        key = f"{Layout.of(spec).exports}{spec.slug}{tail}.{ENDING[name]}"
        if manifest["totals"]["bytes"] > _MOST_BYTES:
            raise Problem(422, "the dataset is larger than one file may be; download its shards instead")
        async with self._making.setdefault(key, asyncio.Lock()):
            try:
                if key not in [info.key for info in await self.existing(spec)]:
                    await self._make(key, spec, manifest, name, metadata=metadata)
            finally:
                self._making.pop(key, None)
        return key

    async def _make(
        self, key: str, spec: JobSpec, manifest: Mapping[str, Any], name: str, *, metadata: bool
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="shardline-export-", dir=self._folder) as folder:
            path = Path(folder) / "export"
            writer = await run_in_thread(partial(open_format, name, path, manifest, metadata=metadata))
            try:
                await self._fill(writer, spec, manifest)
            finally:
                await run_in_thread(writer.close)
            try:
                await self._store.create(key, path, content_type=MEDIA[name])
            except ObjectExists:
                return

    async def _fill(self, writer: Format, spec: JobSpec, manifest: Mapping[str, Any]) -> None:
        layout = Layout.of(spec)
        for shard in manifest["shards"]:
            chunks = plain_bytes(self._store, layout.root + shard["key"], layout.compression)
            async with aclosing(_batches(chunks)) as batches:
                async for lines in batches:
                    await run_in_thread(partial(writer.add, lines))


async def _batches(chunks: AsyncIterator[bytes]) -> AsyncGenerator[list[bytes], None]:
    """Whole lines, a few megabytes at a time."""
    held = b""
    async for chunk in chunks:
        held += chunk
        if len(held) >= _BATCH_BYTES:
            whole, _, held = held.rpartition(b"\n")
            if whole:
                yield (whole + b"\n").splitlines(keepends=True)
    if held:
        yield held.splitlines(keepends=True)
