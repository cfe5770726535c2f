"""All records of a few documents: those whose metadata name the document, and those whose ids do."""

import asyncio
import logging
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from shardline_common.http.client import ResponseTooLarge
from shardline_common.runtime.retry import Backoff
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.uds3.chroma.chunks import CHUNK_SEPARATOR, Chunk, id_parts
from shardline_producer.sources.uds3.chroma.collection import CollectionReader
from shardline_producer.sources.uds3.scratch import ScratchDatabase
from shardline_producer.sources.uds3.spilled_lists import SortedIds
from shardline_producer.sources.uds3.tombstones import id_text

_log = logging.getLogger(__name__)
_INCLUDE = ("documents", "metadatas")
_RECORDS_PER_REQUEST = 500
_MIN_CHARACTERS = 64 << 20
_MAX_READS = 4
_MAX_NUMBER = 1 << 63
_BACKOFF = Backoff(base=0.05, cap=1.0)
_NUMBER_ZERO = {"$or": [{"chunk_index": {"$eq": 0}}, {"chunk_index": {"$eq": "0"}}]}


class DocumentRecords:
    """Finds the records of documents in one collection.

    ChromaDB can be asked for the records whose metadata name a document, and not for those that lack the
    field. Those are found by their ids, the document's own id and `<document>::chunk::<n>`, in a list of all
    ids, which is kept on disk. The list is read when the first document is requested, and again when a
    record shows that it is old. It is deleted when this object is garbage collected.
    """

    def __init__(self) -> None:
        self._database = ScratchDatabase()
        weakref.finalize(self, self._database.close)
        self._ids = SortedIds(self._database)
        self._is_listed = False
        self._from_one: bool | None = None

    async def of(self, reader: CollectionReader, documents: Sequence[str], max_bytes: int) -> list[Chunk]:
        """The records of documents, and perhaps of others: `document_of` says whose each is.

        1. List the ids of the records that name the documents, by metadata and by id.
        2. Read these records, and of each document the one behind its last number: if it exists, the list of
           all ids is old.
        3. List the records that the metadata name again. The records are whole if it is the same list, all
           of them came, and the list of all ids is not old.

        Raises:
            SourceUnavailable: the documents changed during several reads in a row, or the store lists a
                record and does not return it.
            ResponseTooLarge: the records are over the limit of a response, or far over `max_bytes`.
        """
        where, missing = _naming(documents), list[str]()
        for number in range(_MAX_READS):
            if number:
                await asyncio.sleep(_BACKOFF.longest(number))
            # 1.
            if not self._is_listed:
                _log.info("ChromaDB: the ids of all records are listed, for the texts of chunks")
                await reader.list_ids(self._ids, None)
                _log.info("ChromaDB: %d records", await run_in_thread(self._ids.count))
                self._is_listed = True
            named = await reader.ids_where(where)
            listed = await run_in_thread(partial(self._listed_ids, documents))
            known = named | listed
            # 2.
            added = (_next_ids(documents, known) | set(documents)) - known
            found = await _read(reader, sorted(known | added), added, max_bytes)
            missing = sorted(known.difference(found))
            # 3.
            is_old = not listed.isdisjoint(missing) or not added.isdisjoint(found)
            if await reader.ids_where(where) == named:
                if not missing and not is_old:
                    return list(found.values())
            else:
                missing = []
            self._is_listed = not is_old
        if missing:
            raise reader.short(missing)
        raise reader.changing(
            "records of the same documents were added or removed during each of several reads"
        )

    async def count_from_one(self, reader: CollectionReader) -> bool:
        """Whether no record of the collection has the chunk_index 0, so that chunks are counted from 1."""
        if self._from_one is None:
            self._from_one = not await reader.any_where(_NUMBER_ZERO)
        return self._from_one

    def _listed_ids(self, documents: Sequence[str]) -> set[str]:
        """The ids in the list that are those of the documents or of their chunks. Blocks."""
        found = set(self._ids.present(documents))
        for document in documents:
            found.update(self._ids.beginning(document + CHUNK_SEPARATOR))
        return found


def _naming(documents: Sequence[str]) -> Mapping[str, Any]:
    """The clause of the records whose metadata name one of the documents, as text or as a number."""
    # A list of values of two types is refused.
    values = [list(documents), _numbers(documents, int), _numbers(documents, float)]
    clauses: list[Mapping[str, Any]] = [{"document_id": {"$in": one}} for one in values if one]
    return clauses[0] if len(clauses) == 1 else {"$or": clauses}


def _numbers(documents: Sequence[str], kind: type[int | float]) -> list[int | float]:
    """The numbers of a type whose `id_text` is one of the documents."""
    found = []
    for document in documents:
        with suppress(ValueError):
            number = kind(document)
            if id_text(number) == document and abs(number) < _MAX_NUMBER:
                found.append(number)
    return found


def _next_ids(documents: Sequence[str], known: Iterable[str]) -> set[str]:
    """Of each document, the id of the chunk behind the last one whose id has a number."""
    following = dict.fromkeys(documents, 0)
    for record in known:
        document, number = id_parts(record)
        if document in following and number is not None:
            following[document] = max(following[document], number + 1)
    return {f"{document}{CHUNK_SEPARATOR}{number}" for document, number in following.items()}


async def _read(
    reader: CollectionReader, ids: Sequence[str], optional: Collection[str], max_bytes: int
) -> dict[str, Chunk]:
    """The records of these ids, by id. Those that came without a text are requested once more."""
    # Among the records may be some of other documents.
    limit = max(_MIN_CHARACTERS, 2 * max_bytes)
    found = await _read_once(reader, ids, optional, limit)
    without_text = [record for record, chunk in found.items() if chunk.text is None]
    return found | await _read_once(reader, without_text, (), limit)


async def _read_once(
    reader: CollectionReader, ids: Sequence[str], optional: Collection[str], limit: int
) -> dict[str, Chunk]:
    found, size = dict[str, Chunk](), 0
    for start in range(0, len(ids), _RECORDS_PER_REQUEST):
        part = ids[start : start + _RECORDS_PER_REQUEST]
        for response in await reader.records(part, _INCLUDE, optional):
            lists = (response["ids"], response["documents"], response["metadatas"])
            for record, text, metadata in zip(*lists, strict=True):
                found[record] = chunk = Chunk(record, text, metadata or {})
                size += len(chunk.text or "")
        if size > limit:
            first = next((chunk.text for chunk in found.values() if chunk.text), "")
            message = f"the records have over {limit} characters"
            raise ResponseTooLarge(message, first.encode(errors="replace"))
    return found
