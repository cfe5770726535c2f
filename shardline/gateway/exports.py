"""Exports: a completed dataset as one file, made once and kept in the store."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from shardline.gateway.export_formats import MEDIA_TYPES, ExportWriter, open_export
from shardline.gateway.problems import Problem
from shardline_common.dataset.read import plain_bytes
from shardline_common.errors import ObjectExists
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.ports.store import ObjectInfo, ObjectStore
from shardline_common.runtime.threads import run_in_thread

_BATCH_BYTES = 4 << 20
# The largest object that one put may create in S3.
_MAX_EXPORT_BYTES = 5 << 30


class DatasetExports:
    """Makes exports and finds existing ones. A file is made in `temp_folder` and then put into the store."""

    def __init__(self, store: ObjectStore, temp_folder: Path) -> None:
        self._store = store
        self._temp_folder = temp_folder
        self._locks: dict[str, asyncio.Lock] = {}

    async def existing(self, spec: JobSpec) -> list[ObjectInfo]:
        """List the exports of a dataset that are in the store."""
        return [info async for info in self._store.list(Layout.of(spec).exports)]

    async def get_or_create(
        self, spec: JobSpec, manifest: Mapping[str, Any], name: str, *, metadata: bool, escape: bool = True
    ) -> str:
        """Return the object key of an export; create the object when it does not exist.

        Concurrent calls for the same export wait for the first of them. `escape`: whether CSV escapes what a
        spreadsheet takes for a formula.

        Raises:
            Problem: 501, the format needs a library; 422, the dataset is too large for one object.
            StoreUnavailable: the store cannot be read or written now.
        """
        tail = "" if metadata else ".text-only"
        if name == "csv" and escape:
            # Not the key of a file that an earlier version made without escapes.
            tail += ".escaped"
        key = f"{Layout.of(spec).exports}{spec.slug}{tail}.{name}"
        if manifest["totals"]["bytes"] > _MAX_EXPORT_BYTES:
            raise Problem(422, "the dataset is larger than one file may be; download its shards instead")
        async with self._locks.setdefault(key, asyncio.Lock()):
            try:
                if key not in [info.key for info in await self.existing(spec)]:
                    with tempfile.TemporaryDirectory(
                        prefix="shardline-export-", dir=self._temp_folder
                    ) as folder:
                        path = Path(folder) / "export"
                        opening = partial(open_export, name, path, manifest, metadata=metadata, escape=escape)
                        await self._write(opening, spec, manifest)
                        # Another gateway may have created the same export at the same time.
                        with suppress(ObjectExists):
                            await self._store.create(key, path, content_type=MEDIA_TYPES[name])
            finally:
                self._locks.pop(key, None)
        return key

    async def _write(
        self, opening: Callable[[], ExportWriter], spec: JobSpec, manifest: Mapping[str, Any]
    ) -> None:
        layout = Layout.of(spec)
        writer = await run_in_thread(opening)
        try:
            for shard in manifest["shards"]:
                key, expected = layout.root + shard["key"], shard["sha256"]
                chunks = plain_bytes(self._store, key, layout.compression, expected)
                async with aclosing(line_batches(chunks)) as batches:
                    async for lines in batches:
                        await run_in_thread(partial(writer.add, lines))
        finally:
            await run_in_thread(writer.close)


async def line_batches(
    chunks: AsyncIterator[bytes], at_least: int = _BATCH_BYTES
) -> AsyncGenerator[list[bytes], None]:
    """Cut chunks into whole lines with their ends, in batches of about `at_least` bytes."""
    parts, size = list[bytes](), 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size >= at_least:
            *lines, rest = b"".join(parts).splitlines(keepends=True)
            parts, size = [rest], len(rest)
            if lines:
                yield lines
    if parts:
        yield b"".join(parts).splitlines(keepends=True)
