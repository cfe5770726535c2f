"""A collection of ChromaDB, and reading it over the HTTP API of version 2."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from shardline_common.errors import SourceUnavailable
from shardline_common.http.client import ResponseTooLarge
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.http_store import HttpStore, HttpStoreOptions
from shardline_producer.sources.uds3.distance import SPACES
from shardline_producer.sources.uds3.spilled_lists import SortedIds

_NOT_FOUND = 404
_MAX_RECORDS = 500
_MAX_VECTOR_VALUES = 400_000
_IDS_PER_PAGE = 50_000
_METADATAS_PER_PAGE = 2_000
_MAX_LISTINGS = 3


@dataclass(frozen=True, slots=True)
class ChromaOptions:
    """The address of a collection. `include_archived`: documents marked archived are hits too."""

    http: HttpStoreOptions
    tenant: str = "default_tenant"
    database: str = "default_database"
    collection: str = "document_chunks"
    include_archived: bool = False


@dataclass(frozen=True, slots=True)
class ChromaCollection:
    """The properties of a collection.

    `dimension` is None until a vector was added. `fields`: the declared metadata keys; None in versions of
    ChromaDB that declare none.
    """

    path: str
    dimension: int | None
    space: str
    fields: tuple[str, ...] | None

    @property
    def records_per_page(self) -> int:
        """The number of vectors to read at once: fewer if they are long."""
        return max(1, min(_MAX_RECORDS, _MAX_VECTOR_VALUES // max(self.dimension or 1, 1)))


async def find_collection(http: HttpStore, options: ChromaOptions) -> ChromaCollection:
    """Find the collection that the options name.

    Raises:
        JobFailed: there is no such collection, or it has an unknown distance function.
    """
    parts = ("tenants", options.tenant, "databases", options.database, "collections")
    folder = "/api/v2/" + "/".join(quote(part, safe="") for part in parts)
    response = await http.get(f"{folder}/{quote(options.collection, safe='')}")
    if response.status == _NOT_FOUND:
        raise http.invalid(
            f"there is no collection '{options.collection}' in tenant '{options.tenant}', "
            f"database '{options.database}'",
            "set CHROMA_COLLECTION, CHROMA_TENANT and CHROMA_DATABASE; Shardline never creates one",
        )
    found = await http.fields(response, "find the collection", id=str)
    space = _space(found)
    if space not in SPACES:
        raise http.invalid(
            f"the collection measures distance as '{space}'", f"use one of {', '.join(SPACES)}"
        )
    keys = (found.get("schema") or {}).get("keys")
    fields = None if keys is None else tuple(sorted(key for key in keys if not key.startswith("#")))
    return ChromaCollection(f"{folder}/{found['id']}", found.get("dimension"), space, fields)


def _space(found: Mapping[str, Any]) -> str:
    configuration = found.get("configuration_json") or {}
    for index in ("hnsw", "spann"):
        if space := (configuration.get(index) or {}).get("space"):
            return str(space)
    return str((found.get("metadata") or {}).get("hnsw:space") or "l2")


async def count_records(http: HttpStore, collection: ChromaCollection) -> int:
    """The number of records."""
    found = await http.json(await http.get(collection.path + "/count"), "count records")
    if not isinstance(found, int):
        raise http.invalid("cannot count records: the response is no number", "check CHROMA_HOST")
    return found


def uneven_lists(include: Sequence[str], found: Any) -> str | None:
    """The fault of records whose ids and other lists differ in length."""
    if not isinstance(found, dict) or not isinstance(found.get("ids"), list):
        # `HttpStore.fields` names it.
        return None
    for name in include:
        values = found.get(name)
        if not isinstance(values, list) or len(values) != len(found["ids"]):
            return f"its response has {len(found['ids'])} ids and not as many {name}"
    return None


class CollectionReader:
    """Reads a collection: first the ids of its records, then the records by their ids.

    A page at an offset costs the server more the higher the offset, and shifts when a record is removed.
    So only ids are read by offset, in few large pages, and they are read again if the collection changed.
    """

    def __init__(self, http: HttpStore, collection: ChromaCollection) -> None:
        self._http = http
        self._collection = collection

    async def list_ids(self, ids: SortedIds, where: Mapping[str, Any] | None) -> None:
        """Fill `ids` with the ids of the records that pass the clause.

        Raises:
            SourceUnavailable: the collection changed during each of several attempts.
        """
        for _ in range(_MAX_LISTINGS):
            ids.clear()
            before, listed = await count_records(self._http, self._collection), 0
            # No count tells how many records pass a clause: an empty page is their end when it comes twice.
            while page := await self._id_page(listed, where) or (
                where and await self._id_page(listed, where)
            ):
                listed += len(page)
                await run_in_thread(partial(ids.add, page))
            after = await count_records(self._http, self._collection)
            complete = where is not None or listed == after
            if before == after and complete and ids.count() == listed:
                return
        raise SourceUnavailable(
            f"{self._http.address}: records were added or removed while the collection was listed",
            hint="try again when nothing writes to the collection",
        )

    async def _id_page(self, offset: int, where: Mapping[str, Any] | None) -> Sequence[str]:
        limit = _IDS_PER_PAGE
        while True:
            body = {"limit": limit, "offset": offset, "include": []}
            try:
                response = await self._get(body if where is None else body | {"where": where})
            except ResponseTooLarge:
                if limit == 1:
                    raise self._http.invalid("one id exceeds the limit of a response") from None
                limit //= 2
            else:
                page: Sequence[str] = response["ids"]
                return page

    async def metadatas(self, ids: SortedIds) -> AsyncGenerator[list[tuple[str, Mapping[str, Any]]], None]:
        """Pages of (record id, metadata) of all records in `ids` that still exist."""
        last = ""
        while page := ids.after(last, _METADATAS_PER_PAGE):
            last = page[-1]
            for response in await self.records(page, ("metadatas",)):
                pairs = zip(response["ids"], response["metadatas"], strict=True)
                yield [(record, metadata or {}) for record, metadata in pairs]

    async def records(self, ids: Sequence[str], include: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """The responses that together have the records of these ids; several if one would be too large.

        A record that a response lacks is requested once more: it was removed, or the response was short.
        """
        if not ids:
            return []
        try:
            found = [await self._get({"ids": list(ids), "include": include})]
        except ResponseTooLarge:
            if len(ids) == 1:
                raise self._http.invalid(f"the record '{ids[0]}' exceeds the limit of a response") from None
            half = len(ids) // 2
            return [*await self.records(ids[:half], include), *await self.records(ids[half:], include)]
        if missing := set(ids).difference(found[0]["ids"]):
            found.append(await self._get({"ids": sorted(missing), "include": include}))
        return found

    async def _get(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        check = partial(uneven_lists, body["include"])
        response = await self._http.post(self._collection.path + "/get", body, check=check)
        found: Mapping[str, Any] = await self._http.fields(response, "read records", ids=list)
        return found
