"""A collection of ChromaDB, and reading it over the HTTP API of version 2."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.http.client import ResponseTooLarge
from shardline_common.runtime.retry import Backoff
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.exact_json import is_unicode
from shardline_producer.sources.http_store import HttpStore, HttpStoreOptions
from shardline_producer.sources.uds3.distance import SPACES
from shardline_producer.sources.uds3.scratch import ScratchDatabase
from shardline_producer.sources.uds3.spilled_lists import SortedIds

_log = logging.getLogger(__name__)
_NOT_FOUND = 404
_MAX_RECORDS = 500
_MAX_VECTOR_VALUES = 400_000
_IDS_PER_PAGE = 50_000
_METADATAS_PER_PAGE = 2_000
_MAX_LISTS = 6
_MAX_REQUESTS = 3
_MAX_MISSING = 100_000
_HASH_MODULUS = 1 << 128
_BACKOFF = Backoff(base=0.05, cap=1.0)


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

    `id` is another one when the collection is made anew under its name. `dimension` is None until a vector
    was added. `fields`: the declared metadata keys; None in versions of ChromaDB that declare none.
    """

    path: str
    dimension: int | None
    space: str
    fields: tuple[str, ...] | None
    id: str = ""

    @property
    def records_per_page(self) -> int:
        """The number of vectors to read at once: fewer if they are long."""
        return max(1, min(_MAX_RECORDS, _MAX_VECTOR_VALUES // max(self.dimension or 1, 1)))


async def find_collection(http: HttpStore, options: ChromaOptions) -> ChromaCollection:
    """Find the collection that the options name.

    Raises:
        JobFailed: there is no such collection, or it has an unknown distance function.
    """
    if (found := await look_up_collection(http, options)) is None:
        raise http.invalid(
            f"there is no collection '{options.collection}' in tenant '{options.tenant}', "
            f"database '{options.database}'",
            "set CHROMA_COLLECTION, CHROMA_TENANT and CHROMA_DATABASE; Shardline never creates one",
        )
    return found


async def look_up_collection(http: HttpStore, options: ChromaOptions) -> ChromaCollection | None:
    """The collection that the options name; None if there is none. Raises as `find_collection`."""
    parts = ("tenants", options.tenant, "databases", options.database, "collections")
    folder = "/api/v2/" + "/".join(quote(part, safe="") for part in parts)
    response = await http.get(f"{folder}/{quote(options.collection, safe='')}", check=_fault_of_collection)
    if response.status == _NOT_FOUND:
        return None
    found = await http.fields(response, "find the collection", id=str)
    space = _space(found)
    if space not in SPACES:
        raise http.invalid(
            f"the collection measures distance as '{space}'", f"use one of {', '.join(SPACES)}"
        )
    path = f"{folder}/{quote(found['id'], safe='')}"
    return ChromaCollection(path, found.get("dimension"), space, _declared_fields(found), found["id"])


def _fault_of_collection(found: Any) -> str | None:
    """Why a description is not whole; None when it is, or is none, which the caller names.

    It raises for a description of another form.
    """
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        return None
    _space(found)
    _declared_fields(found)
    dimension = found.get("dimension")
    if not is_unicode(found["id"]) or not (dimension is None or isinstance(dimension, int)):
        return "its collection has no id, or a dimension that is no number"
    return None


def _declared_fields(found: Mapping[str, Any]) -> tuple[str, ...] | None:
    keys = (found.get("schema") or {}).get("keys")
    return None if keys is None else tuple(sorted(key for key in keys if not key.startswith("#")))


def _space(found: Mapping[str, Any]) -> str:
    configuration = found.get("configuration_json") or {}
    for index in ("hnsw", "spann"):
        if space := (configuration.get(index) or {}).get("space"):
            return str(space)
    return str((found.get("metadata") or {}).get("hnsw:space") or "l2")


async def count_records(http: HttpStore, collection: ChromaCollection) -> int:
    """The number of records."""
    response = await http.get(collection.path + "/count", check=_no_number)
    if response.status == _NOT_FOUND:
        raise _gone(http)
    return int(await http.json(response, "count records"))


def _no_number(found: Any) -> str | None:
    return None if isinstance(found, int) and not isinstance(found, bool) else "its count is no number"


def _changing(http: HttpStore, message: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{http.address}: {message}",
        hint="try again when nothing writes to the collection",
        lasting=FailureCode.SOURCE_CHANGED,
    )


def _gone(http: HttpStore) -> SourceUnavailable:
    return _changing(http, "the collection was removed, or made anew, while it was read")


def wrong_records(request: Mapping[str, Any], found: Any) -> str | None:
    """The fault of a response: lists that differ in length, or a record twice or one not requested."""
    if not isinstance(found, dict) or not isinstance(found.get("ids"), list):
        return "its response has no list of ids"
    ids = found["ids"]
    for name in request["include"]:
        values = found.get(name)
        if not isinstance(values, list) or len(values) != len(ids):
            return f"its response has {len(ids)} ids and not as many {name}"
    if not all(isinstance(one, str) and is_unicode(one) for one in ids):
        return "its response has an id that is no text"
    if not all(isinstance(one, dict | None) for one in found.get("metadatas") or ()):
        return "its response has metadata that are no object"
    return _other_records(request, ids)


def _other_records(request: Mapping[str, Any], ids: Sequence[str]) -> str | None:
    if len(set(ids)) != len(ids):
        return "its response has a record twice"
    if "ids" in request and not set(request["ids"]).issuperset(ids):
        return "its response has a record that was not requested"
    return None


class CollectionReader:
    """Reads a collection: first the ids of its records, then the records by their ids.

    ChromaDB cannot list ids behind an id, only at an offset. A page at an offset shifts when a record before
    it is removed, and then the list lacks a record that nobody touched. So a list counts only when the next
    one names the same records.
    """

    def __init__(self, http: HttpStore, collection: ChromaCollection) -> None:
        self._http = http
        self._collection = collection
        self._missing: set[str] = set()
        self._difference = ""

    async def list_ids(self, ids: SortedIds, where: Mapping[str, Any] | None) -> None:
        """Fill `ids` with the ids of the records that pass the clause, proven by two equal lists in a row.

        Raises:
            SourceUnavailable: no two lists in a row were equal, or the store counts other records.
        """
        before: tuple[int, int] | None = None
        for number in range(_MAX_LISTS):
            found = await self._list_once(ids, where)
            if found is not None and found == before:
                return
            before = found
            if number:
                _log.info("%s: two lists of record ids differ, a further one is read", self._http.address)
                await asyncio.sleep(_BACKOFF.longest(number))
        raise self.changing(
            f"records were added or removed while the collection was listed{self._difference}"
        )

    async def _list_once(self, ids: SortedIds, where: Mapping[str, Any] | None) -> tuple[int, int] | None:
        """The number of ids and the sum of their hashes; None if an id came twice or the count is another."""
        await run_in_thread(ids.clear)
        listed = total = 0
        async with aclosing(self._id_pages(where)) as pages:
            async for page in pages:
                listed += len(page)
                total += await run_in_thread(partial(_add_page, ids, page))
        if await run_in_thread(ids.count) != listed:
            return None
        # No count tells how many records pass a clause.
        if where is None and (counted := await count_records(self._http, self._collection)) != listed:
            self._difference = f" (the store counts {counted} and lists {listed})"
            return None
        return listed, total % _HASH_MODULUS

    async def ids_where(self, where: Mapping[str, Any]) -> set[str]:
        """The ids of the few records that pass a clause: one list, which the caller compares with another."""
        found = set[str]()
        async with aclosing(self._id_pages(where)) as pages:
            async for page in pages:
                found.update(page)
        return found

    async def any_where(self, where: Mapping[str, Any]) -> bool:
        """Whether a record passes a clause."""
        body = {"limit": 1, "offset": 0, "include": [], "where": where}
        return bool((await self._get(body))["ids"] or (await self._get(body))["ids"])

    async def _id_pages(self, where: Mapping[str, Any] | None) -> AsyncGenerator[Sequence[str], None]:
        """Pages of ids. An empty page is the end when it comes twice: a shorter one may have been cut."""
        offset = 0
        while page := await self._id_page(offset, where) or await self._id_page(offset, where):
            offset += len(page)
            yield page

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
            for response in await self.small_records(page, ("metadatas",)):
                pairs = zip(response["ids"], response["metadatas"], strict=True)
                yield [(record, metadata or {}) for record, metadata in pairs]

    async def records(
        self, ids: Sequence[str], include: Sequence[str], optional: Collection[str] = ()
    ) -> Sequence[Mapping[str, Any]]:
        """The responses that together have the records of these ids; several if one would be too large.

        A record that a response lacks is requested again, until several responses in a row have none. If it
        stays missing, `check_missing` explains it. The records of `optional` need not exist.

        Raises:
            ResponseTooLarge: one record is over the limit of a response.
        """
        found: list[Mapping[str, Any]] = []
        missing, vain = list(ids), 0
        while missing and vain < _MAX_REQUESTS:
            responses = await self._records(missing, include)
            came = {record for response in responses for record in response["ids"]}
            found += responses
            missing = [record for record in missing if record not in came and record not in optional]
            vain = 0 if came else vain + 1
        self._missing.update(missing)
        if len(self._missing) > _MAX_MISSING:
            raise self.changing(f"more than {_MAX_MISSING} records were removed while they were read")
        return found

    async def small_records(self, ids: Sequence[str], include: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """As `records`. A record over the limit of a response fails the job."""
        try:
            return await self.records(ids, include)
        except ResponseTooLarge as error:
            raise self._http.invalid(str(error), "delete large values from the record's metadata") from None

    async def _records(self, ids: Sequence[str], include: Sequence[str]) -> list[Mapping[str, Any]]:
        try:
            return [await self._get({"ids": list(ids), "include": include})]
        except ResponseTooLarge as error:
            if len(ids) == 1:
                message = f"the record '{ids[0]}' exceeds the limit of a response"
                raise ResponseTooLarge(message, error.start) from error
            half = len(ids) // 2
            return [*await self._records(ids[:half], include), *await self._records(ids[half:], include)]

    async def check_missing(self) -> int:
        """Check that the records that `records` did not find were removed. Returns their number.

        Raises:
            SourceUnavailable: the collection still lists one of them, so the answers were short.
        """
        if not self._missing:
            return 0
        with ScratchDatabase() as database:
            ids = SortedIds(database)
            await self.list_ids(ids, None)
            if kept := ids.present(sorted(self._missing)):
                raise self.short(kept)
        count = len(self._missing)
        self._missing.clear()
        return count

    def changing(self, message: str) -> SourceUnavailable:
        """The error of a collection that changes while it is read."""
        return _changing(self._http, message)

    def short(self, missing: Sequence[str]) -> SourceUnavailable:
        """The error of records that the store lists and does not return."""
        return SourceUnavailable(
            f"{self._http.address}: it lists the record '{missing[0]}' and does not return it",
            hint="check the server, and what stands between it and Shardline",
            cause=f"{self._http.address}: its answer is not whole",
        )

    def without_vector(self, records: Sequence[str]) -> JobFailed:
        """The error of records whose vectors cannot be ranked."""
        others = f" and {len(records) - 1} others" if len(records) > 1 else ""
        return self._http.invalid(
            f"the vector of the record '{records[0]}'{others} is not "
            f"{self._collection.dimension or 'as many as the query has'} finite numbers",
            "embed the record again, or delete it from the collection",
        )

    async def _get(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        check = partial(wrong_records, body)
        response = await self._http.post(self._collection.path + "/get", body, check=check)
        if response.status == _NOT_FOUND:
            raise _gone(self._http)
        found: Mapping[str, Any] = await self._http.fields(response, "read records", ids=list)
        return found


def _add_page(ids: SortedIds, page: Sequence[str]) -> int:
    """Add ids. Returns the sum of their hashes. Blocks."""
    ids.add(page)
    return sum(int.from_bytes(blake2b(one.encode(), digest_size=16).digest()) for one in page)
