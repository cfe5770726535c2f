"""Datasets in the store: manifests, file names, exports, and the first kept and rejected rows."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson

from shardline.gateway.exports import DatasetExports
from shardline.services.job_view import JobView
from shardline_common.dataset.read import plain_bytes
from shardline_common.errors import JobFailed, ObjectMissing
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import State
from shardline_common.ports.store import ObjectInfo, ObjectStore

_MAX_MANIFESTS = 512
_SAMPLE_BYTES = 1 << 18
_EXPORTS = "exports/"


class DatasetReader:
    """Reads datasets from a store. With `store` None it finds nothing.

    Exports are made in `temp_folder`.
    """

    def __init__(self, store: ObjectStore | None, temp_folder: Path) -> None:
        self.store = store
        self.exports = DatasetExports(store, temp_folder) if store is not None else None
        self._manifests: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._reads = asyncio.Semaphore(16)

    async def manifest(self, view: JobView) -> Mapping[str, Any] | None:
        """Read the manifest of a completed dataset; None when the job is not completed.

        Manifests are cached, because the manifest of a completed dataset never changes.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """
        spec = view.state.spec
        if view.state.state is not State.COMPLETED or self.store is None:
            return None
        found = self._manifests.get(spec.job_id)
        if found is None:
            async with self._reads:
                found = orjson.loads(await self.store.get(Layout.of(spec).manifest))
            while len(self._manifests) >= _MAX_MANIFESTS:
                self._manifests.popitem(last=False)
        self._manifests[spec.job_id] = found
        self._manifests.move_to_end(spec.job_id)
        return found

    async def file_names(self, spec: JobSpec, manifest: Mapping[str, Any]) -> list[str]:
        """List the files of a dataset that may be downloaded: shards, manifest, card and exports."""
        exports = await self.exports.existing(spec) if self.exports else []
        start = len(Layout.of(spec).exports)
        return [
            *(shard["key"] for shard in manifest["shards"]),
            "manifest.json",
            "README.md",
            *(_EXPORTS + info.key[start:] for info in exports),
        ]

    def object_key(self, spec: JobSpec, file: str) -> str:
        """Return the object key of a file that `file_names` listed."""
        layout = Layout.of(spec)
        return (
            layout.exports + file.removeprefix(_EXPORTS) if file.startswith(_EXPORTS) else layout.root + file
        )

    async def object_info(self, key: str) -> ObjectInfo:
        """Read size and ETag of an object. Raise ObjectMissing when there is none."""
        if self.store is not None:
            async for info in self.store.list(key):
                if info.key == key:
                    return info
        raise ObjectMissing("there is no such file")

    async def sample_rows(self, spec: JobSpec, prefix: str, limit: int) -> list[dict[str, Any]]:
        """Read the first rows of the first object below `data/` (kept) or `rejected/`.

        Reads at most 256 KiB. Returns an empty list when there is no such object yet, or it cannot be
        decompressed.
        """
        if self.store is None:
            return []
        layout, head = Layout.of(spec), b""
        async for info in self.store.list(f"{layout.root}{prefix}"):
            try:
                async with aclosing(plain_bytes(self.store, info.key, layout.compression)) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        head += chunk
                        if len(head) >= _SAMPLE_BYTES or head.count(b"\n") >= limit:
                            break
            except (JobFailed, ObjectMissing):
                return []
            break
        # The bytes behind the last line break are part of a row.
        return [orjson.loads(line) for line in head.split(b"\n")[:-1][:limit]]
