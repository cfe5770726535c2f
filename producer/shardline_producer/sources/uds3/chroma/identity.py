"""Whether a collection is still the planned one: ChromaDB gives each one that is created an id of its own."""

from collections.abc import Mapping
from typing import Any

from shardline_producer.sources.http_store import HttpStore
from shardline_producer.sources.uds3.chroma.collection import (
    ChromaCollection,
    ChromaOptions,
    count_records,
    find_collection,
)


async def read_identity(http: HttpStore, options: ChromaOptions) -> dict[str, Any]:
    """The id of the collection, and the number of its records."""
    collection = await find_collection(http, options)
    return {"collection": collection.id, "records": await count_records(http, collection)}


def why_other(
    planned: Mapping[str, Any], name: str, collection: ChromaCollection | None, records: int | None = None
) -> str | None:
    """Why a collection is not the one whose identity was planned, or is empty now; None if it is."""
    if collection is None:
        return f"the collection '{name}' was removed"
    if collection.id != planned["collection"]:
        return f"the collection '{name}' was made anew"
    return f"the collection '{name}' was emptied" if planned.get("records") and records == 0 else None
