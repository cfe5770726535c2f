"""Finished datasets in the store: manifests, files, exports, and samples of what was kept and dropped."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson

from shardline.gateway.exports import Exports
from shardline.services.client import JobView
from shardline_common.dataset.read import plain_bytes
from shardline_common.errors import JobFailed, ObjectMissing
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import State
from shardline_common.ports.store import ObjectInfo, ObjectStore

_MOST_MANIFESTS = 512
_SAMPLE_BYTES = 1 << 18
_EXPORTS = "exports/"


class Library:
    """Reads what stands in the store; `store` None: there is none, and nothing is found."""

    def __init__(self, store: ObjectStore | None, folder: Path) -> None:
        self.store = store
        self.exports = Exports(store, folder) if store is not None else None
        self._manifests: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._reads = asyncio.Semaphore(16)

    async def manifest(self, view: JobView) -> Mapping[str, Any] | None:
        """The manifest of a completed dataset, which never changes; None for any other.

        Raises:
            StoreUnavailable: try again later.
        """
        spec = view.state.spec
        if view.state.state is not State.COMPLETED or self.store is None:
            return None
        found = self._manifests.get(spec.job_id)
        if found is None:
            async with self._reads:
                found = orjson.loads(await self.store.get(Layout.of(spec).manifest))
            while len(self._manifests) >= _MOST_MANIFESTS:
                self._manifests.popitem(last=False)
        self._manifests[spec.job_id] = found
        self._manifests.move_to_end(spec.job_id)
        return found

    async def files(self, spec: JobSpec, manifest: Mapping[str, Any]) -> list[str]:
        """The files of a dataset that may be downloaded: shards, manifest, card, exports."""
        made = await self.exports.existing(spec) if self.exports else []
        start = len(Layout.of(spec).exports)
        return [
            *(shard["key"] for shard in manifest["shards"]),
            "manifest.json",
            "README.md",
            *(_EXPORTS + info.key[start:] for info in made),
        ]

    def key(self, spec: JobSpec, file: str) -> str:
        """The key of a file that `files` named."""
        layout = Layout.of(spec)
        return (
            layout.exports + file.removeprefix(_EXPORTS) if file.startswith(_EXPORTS) else layout.root + file
        )

    async def info(self, key: str) -> ObjectInfo:
        """Size and ETag of an object. Raises ObjectMissing."""
        if self.store is not None:
            async for info in self.store.list(key):
                if info.key == key:
                    return info
        raise ObjectMissing("there is no such file")

    async def sample(self, spec: JobSpec, kind: str, most: int) -> list[dict[str, Any]]:
        """The first rows that landed (`data/`), or the first that were dropped (`rejected/`)."""
        if self.store is None:
            return []
        layout = Layout.of(spec)
        async for info in self.store.list(f"{layout.root}{kind}"):
            try:
                return await self._head(info.key, layout.compression, most)
            except (JobFailed, ObjectMissing):
                return []
        return []

    async def _head(self, key: str, compression: str, most: int) -> list[dict[str, Any]]:
        assert self.store is not None  # noqa: S101 - for the type checker
        held = b""
        async with aclosing(plain_bytes(self.store, key, compression)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                held += chunk
                if len(held) >= _SAMPLE_BYTES or held.count(b"\n") >= most:
                    break
        lines = held.split(b"\n")[:-1][:most]
        return [orjson.loads(line) for line in lines]
