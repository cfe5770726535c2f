"""One pass over a database of CouchDB: revisions, marks and tombstones of its documents, and their names."""

import json
import weakref
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from shardline_common.http.client import OK, ResponseTooLarge
from shardline_common.job.findings import Certainty, Level
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.http_store import HttpStore
from shardline_producer.sources.uds3.couch.body_text import is_deleted_document
from shardline_producer.sources.uds3.couch.documents import database_path, fault_of_row, is_text, read_rows
from shardline_producer.sources.uds3.scratch import ScratchDatabase
from shardline_producer.sources.uds3.spilled_lists import AliasIndex
from shardline_producer.sources.uds3.store_ports import MAX_BODIES
from shardline_producer.sources.uds3.tombstones import document_id

_PAGE = 200
# The last document of the page before, and one more.
_LEAST_PAGE = 2
_CHANGES_PER_PAGE = 10_000
_IDS_PER_PAGE = 1_000
_DESIGN = "_design/"
_LIVE, _DELETED = "0", "1"


class CouchCatalogue:
    """What two lists of a database say of its documents. It is kept on disk until it is garbage collected.

    `_all_docs` lists the documents; `_changes` lists them again, and the tombstones of deleted ones. Each
    list is read once.
    """

    def __init__(self, *, include_archived: bool) -> None:
        self._include_archived = include_archived
        self._database = ScratchDatabase()
        weakref.finalize(self, self._database.close)
        self._aliases = AliasIndex(self._database)
        for table in ("documents", "changes"):
            self._database.execute(
                f"CREATE TABLE {table} (id TEXT PRIMARY KEY, rev TEXT, deleted INTEGER) WITHOUT ROWID"
            )
        self._documents_read = False
        self._unread = set[str]()
        self._certainty: Certainty | None = None

    @property
    def documents_read(self) -> bool:
        """Whether the list of the documents was read to its end."""
        return self._documents_read

    @property
    def certainty(self) -> Certainty:
        """How the list of marks is proven, once both lists were read."""
        return self._certainty or Certainty(Level.UNPROVEN, "its marks of deletion were not listed")

    async def read_documents(self, http: HttpStore, database: str) -> None:
        """Read the list of the documents, unless it was read."""
        if not self._documents_read:
            async for page in _document_pages(http, database):
                await run_in_thread(partial(self._add, page))
            self._documents_read = True

    async def read_marks(self, http: HttpStore, database: str) -> None:
        """Read both lists, unless they were read, and compare them.

        1. List the documents, then the changes.
        2. Read the documents again that the list lacks, or has in another revision.
        3. Count the documents that the changes lack, and mark those that the changes say were deleted.
        """
        await self.read_documents(http, database)
        if self._certainty is not None:
            return
        status = OK
        async for page in _change_pages(http, database):
            if isinstance(page, int):
                status = page
            else:
                await run_in_thread(partial(self._add_changes, page))
        if status != OK:
            why = f"its deleted documents cannot be listed (_changes answers {status})"
            self._certainty = Certainty(Level.UNPROVEN, why)
            return
        last = ""
        while outdated := await run_in_thread(partial(self._outdated, last)):
            last = outdated[-1]
            for rows in await _rows_of(http, database, outdated):
                await run_in_thread(partial(self._add, rows))
        self._certainty = await run_in_thread(self._compare)

    def aliases(self, ids: Iterable[str]) -> list[tuple[str, str]]:
        """The (CouchDB id, document id) pairs of documents that another document names. Blocks."""
        return [(alias[1:], identity) for alias, identity in self._aliases.find(ids)]

    def live_revisions(self, couch_ids: Sequence[str]) -> dict[str, str]:
        """The revisions in which these documents were listed without a mark, by their ids. Blocks."""
        query = "SELECT rev FROM documents WHERE id = ? AND NOT deleted"
        return {name: rev for name in couch_ids for (rev,) in self._database.rows(query, (name,))}

    def deleted_pages(self) -> Iterator[list[str]]:
        """The documents that are deleted, by the names that they have in UDS3. Blocks.

        A document with an own one in CouchDB is deleted if that one is. Else it is deleted if all documents
        that name it are.
        """
        query = (
            "SELECT id FROM documents WHERE deleted UNION SELECT a.id FROM aliases a"
            " GROUP BY a.id HAVING substr(min(a.name), 1, 1) = ? AND NOT EXISTS"
            " (SELECT 1 FROM documents d WHERE d.id = a.id AND NOT d.deleted)"
        )
        for page in self._database.pages(query, _IDS_PER_PAGE, (_DELETED,)):
            yield [identity for (identity,) in page]

    def _add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        documents, names = [], []
        for row in rows:
            document, value = row["doc"] or {"_id": row["id"]}, row.get("value") or {}
            deleted = is_deleted_document(document, include_archived=self._include_archived)
            deleted = deleted or value.get("deleted") is True
            (self._unread.add if row.get("unread") else self._unread.discard)(row["id"])
            documents.append((row["id"], str(value.get("rev", "")), int(deleted)))
            names += alias_of(document, deleted=deleted)
        self._database.write("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", documents)
        self._aliases.add(names)

    def _add_changes(self, changes: Sequence[Mapping[str, Any]]) -> None:
        # A document that changed while it was listed comes again, and the last time counts.
        self._database.write(
            "INSERT OR REPLACE INTO changes VALUES (?, ?, ?)",
            ((one["id"], one["changes"][0]["rev"], int(one.get("deleted") is True)) for one in changes),
        )

    def _outdated(self, last: str) -> list[str]:
        """The next documents after `last` that were changed, or not listed, before the changes were."""
        query = (
            "SELECT c.id FROM changes c LEFT JOIN documents d ON d.id = c.id AND d.rev = c.rev"
            " WHERE NOT c.deleted AND d.id IS NULL AND c.id > ? ORDER BY c.id LIMIT ?"
        )
        return [identity for (identity,) in self._database.rows(query, (last, MAX_BODIES))]

    def _compare(self) -> Certainty:
        unchanged = "SELECT count(*) FROM documents WHERE id NOT IN (SELECT id FROM changes)"
        different = self._database.rows(unchanged)[0][0]
        # The list of changes is the later one. Its tombstones are deleted documents too.
        self._database.execute(
            "INSERT INTO documents SELECT id, rev, deleted FROM changes WHERE deleted"
            " ON CONFLICT (id) DO UPDATE SET deleted = 1"
        )
        self._database.execute("DROP TABLE changes")
        # Documents that were marked, or lost their mark, after they were listed.
        for old, new, deleted in ((_LIVE, _DELETED, 1), (_DELETED, _LIVE, 0)):
            self._database.write(
                "UPDATE OR REPLACE aliases SET name = ? || substr(name, 2) WHERE substr(name, 1, 1) = ?"
                " AND substr(name, 2) IN (SELECT id FROM documents WHERE deleted = ?)",
                [(new, old, deleted)],
            )
        if self._unread:
            why = f"{len(self._unread)} documents are too large for one response: their marks are not known"
            return Certainty(Level.UNPROVEN, why)
        if different:
            return Certainty(Level.COUNTED, f"_changes lacks {different} documents that _all_docs lists")
        return Certainty(Level.PROVEN, "two lists of the documents, _all_docs and _changes, agree")


async def _next_alone(
    http: HttpStore, database: str, params: Mapping[str, str], last: str
) -> list[Mapping[str, Any]]:
    """The next rows of a list whose documents are too large for one response, each document read alone."""
    without = {name: value for name, value in params.items() if name != "include_docs"}
    response = await http.get(f"{database_path(database)}/_all_docs", without)
    listed = (await http.fields(response, "list documents", rows=list))["rows"]
    found: list[Mapping[str, Any]] = [row for row in listed if row["id"] == last]
    for name in [row["id"] for row in listed if row["id"] != last]:
        found += [row for rows in await _rows_of(http, database, [name]) for row in rows]
    return found


async def _rows_of(http: HttpStore, database: str, couch_ids: Sequence[str]) -> list[list[Mapping[str, Any]]]:
    """The rows of documents, as `_all_docs` lists them; those that were removed meanwhile have none.

    A document that exceeds the limit of a response has only its id, and `unread` is True in its row.
    """
    try:
        found = await read_rows(http, database, couch_ids)
    except ResponseTooLarge:
        if len(couch_ids) == 1:
            return [[{"id": couch_ids[0], "doc": {"_id": couch_ids[0]}, "unread": True}]]
        half = len(couch_ids) // 2
        first = await _rows_of(http, database, couch_ids[:half])
        return first + await _rows_of(http, database, couch_ids[half:])
    rows = (found or {}).items()
    return [
        [
            {
                "id": name,
                "value": {"rev": row.revision, "deleted": row.removed},
                "doc": row.document or {"_id": name},
            }
            for name, row in rows
        ]
    ]


def alias_of(document: Mapping[str, Any], *, deleted: bool) -> list[tuple[str, str]]:
    """The (document id, alias) pair of a document that names another id than its own, or no pair.

    An alias is a digit, 1 if the document is deleted, else 0, and the CouchDB id: deleted ones sort last.
    """
    metadata = document.get("metadata")
    identity = document_id(metadata, ("document_id",)) if isinstance(metadata, Mapping) else None
    return [] if identity is None else [(identity, f"{_DELETED if deleted else _LIVE}{document['_id']}")]


async def _document_pages(http: HttpStore, database: str) -> AsyncGenerator[list[Mapping[str, Any]], None]:
    """The rows of all documents with their documents."""
    last, is_repeated, size = "", False, _PAGE
    while True:
        params = {"include_docs": "true", "limit": str(size)}
        if last:
            params["startkey"] = orjson.dumps(last).decode()
        try:
            response = await http.get(f"{database_path(database)}/_all_docs", params, check=_fault_of_page)
            rows = (await http.fields(response, "list documents", rows=list))["rows"]
        except ResponseTooLarge:
            if size > _LEAST_PAGE:
                size = max(_LEAST_PAGE, size // 2)
                continue
            rows = await _next_alone(http, database, params, last)
        size = min(_PAGE, 2 * size)
        # A page begins with the last row of the one before. It is the end of the list if it has no other
        # row, and not if it has fewer rows than it may have: it may have been cut.
        further = [row for row in rows if row["id"] != last]
        yield [row for row in further if not row["id"].startswith(_DESIGN)]
        if not further and (rows or not last or is_repeated):
            return
        # Without any row, the last one was deleted, or the page is not whole.
        is_repeated = not further
        last = further[-1]["id"] if further else last


def _fault_of_page(found: Any) -> str | None:
    """Why a page of `_all_docs` is not whole; None when it is, or is no page, which the caller names."""
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        return None
    if not all(is_text(row["id"]) and row["id"] == row.get("key", row["id"]) for row in rows):
        return "it lists documents without an id"
    # A document that was removed since its row was made has no document: asked again, it has no row.
    return next((fault for row in rows if (fault := fault_of_row(row, documents=True))), None)


async def _change_pages(
    http: HttpStore, database: str
) -> AsyncGenerator[list[Mapping[str, Any]] | int, None]:
    """The changes of all documents, without design documents; the status if the server refuses them."""
    since, is_repeated = "0", False
    while True:
        params = {"limit": str(_CHANGES_PER_PAGE), "since": since}
        response = await http.get(f"{database_path(database)}/_changes", params, check=_fault_of_changes)
        if response.status != OK:
            yield response.status
            return
        found = await http.fields(response, "list changes", results=list)
        changes = found["results"]
        yield [one for one in changes if not one["id"].startswith(_DESIGN)]
        # An empty page is the end when it comes twice: it may have been cut.
        if not changes and is_repeated:
            return
        is_repeated = not changes
        if changes:
            sequence = found.get("last_seq", changes[-1].get("seq"))
            since = sequence if isinstance(sequence, str) else json.dumps(sequence)


def _fault_of_changes(found: Any) -> str | None:
    results = found.get("results") if isinstance(found, dict) else None
    if not isinstance(results, list):
        return None
    if not all(is_text(one["id"]) and is_text(one["changes"][0]["rev"]) for one in results):
        return "it lists changes without an id and a revision"
    if results and found.get("last_seq", results[-1].get("seq")) is None:
        return "it lists changes without their last sequence"
    return None
