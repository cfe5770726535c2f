"""Fills ChromaDB for the tests, over its HTTP API, without the adapter under test."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import aiohttp

from shardline_producer.sources.uds3.chroma.collection import ChromaOptions
from tests.stores import Address, http_options

_BATCH = 100


class ChromaData:
    """One new collection."""

    def __init__(self, address: Address, space: str = "cosine") -> None:
        self._folder = f"{address.url}/api/v2/tenants/default_tenant/databases/default_database/collections"
        self._space = space
        self.name = f"test-{uuid4().hex[:12]}"
        self.options = ChromaOptions(http_options(address), collection=self.name)

    async def create(self) -> None:
        """Create it, empty."""
        body = {"name": self.name, "configuration": {"hnsw": {"space": self._space}}}
        await self._post(self._folder, body)

    async def add(
        self,
        records: Mapping[str, Sequence[float]],
        metadatas: Mapping[str, Mapping[str, Any]] | None = None,
        documents: Mapping[str, str] | None = None,
    ) -> None:
        """Add records: vectors by id, and the metadata and texts of some of them."""
        names = list(records)
        for start in range(0, len(names), _BATCH):
            ids = names[start : start + _BATCH]
            body = {
                "ids": ids,
                "embeddings": [list(records[one]) for one in ids],
                "metadatas": [(metadatas or {}).get(one) for one in ids],
                "documents": [(documents or {}).get(one) for one in ids],
            }
            await self._post(f"{self._folder}/{await self._id()}/upsert", body)

    async def remove(self, ids: Sequence[str]) -> None:
        """Remove records."""
        await self._post(f"{self._folder}/{await self._id()}/delete", {"ids": list(ids)})

    async def _id(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"{self._folder}/{self.name}") as answer:
            return str((await answer.json())["id"])

    async def _post(self, url: str, body: Any) -> None:
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            assert answer.status < 300, await answer.text()
