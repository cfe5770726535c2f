"""Fills ChromaDB for the tests, over its HTTP API and without the adapter under test, and searches it."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import aiohttp

from shardline_common.job.spec import Query
from shardline_producer.sources.uds3.chroma.collection import ChromaOptions
from shardline_producer.sources.uds3.chroma.ranker import ChromaRanker
from shardline_producer.sources.uds3.store_ports import Hit
from tests.embedding_stub import FixedEmbedder
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


SMALL = {
    "north": (0.0, 1.0),
    "b": (1.0, 1.0),
    "a": (1.0, 1.0),
    "east": (1.0, 0.0),
    "south": (0.0, -1.0),
}


async def small_collection(chroma: Address, space: str = "cosine", **metadatas: dict[str, Any]) -> ChromaData:
    """A collection of SMALL."""
    data = ChromaData(chroma, space)
    await data.create()
    await data.add(SMALL, metadatas)
    return data


async def ranked(ranker: ChromaRanker, text: str = "x", **query: Any) -> list[Hit]:
    """All hits of a search."""
    async with aclosing(ranker.rank(Query(text=text, **query))) as pages:
        return [hit async for page in pages for hit in page]


async def ids(ranker: ChromaRanker, **query: Any) -> list[str]:
    """The documents that a search finds."""
    return [hit.id for hit in await ranked(ranker, **query)]


async def deleted_ids(options: ChromaOptions) -> list[str]:
    """The documents that are marked deleted."""
    async with aclosing(ChromaRanker(options, FixedEmbedder(1.0, 0.5)).deleted_ids()) as pages:
        return sorted([one async for page in pages for one in page])
