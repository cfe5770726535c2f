"""Bodies from CouchDB, over its HTTP API.

A body is read from the first of these that has it: the documents that couchdb_refs of the master table
name; the document with the same id in COUCH_DATABASE; the document there with this metadata.document_id.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from shardline_common.errors import JobFailed
from shardline_common.http.client import OK, ResponseTooLarge
from shardline_common.runtime.task_group import TaskGroup
from shardline_common.runtime.tasks import leaf_errors
from shardline_producer.sources.http_store import HttpStore, HttpStoreOptions, open_http_store
from shardline_producer.sources.uds3.body_limit import too_large
from shardline_producer.sources.uds3.couch.aliases import CouchAliases
from shardline_producer.sources.uds3.couch.body_text import (
    Attachment,
    body_of,
    decode_attachment,
    field_text,
    is_deleted_document,
    references,
    text_attachment,
)
from shardline_producer.sources.uds3.store_ports import (
    DELETED_BODY,
    BodyRequest,
    DocumentBody,
    InvalidBody,
)

_NOT_FOUND = 404
_CONCURRENT_ATTACHMENTS = 4
_Bodies = dict[str, DocumentBody | InvalidBody]


@dataclass(frozen=True, slots=True)
class CouchOptions:
    """The address of the bodies. `database` None: only the documents that couchdb_refs name are read."""

    http: HttpStoreOptions
    database: str | None = None
    include_archived: bool = False


def basic_auth(user: str, password: str) -> dict[str, str]:
    """The header of basic authentication, by its name."""
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


class CouchBodyStore:
    """Implements `BodyStore`. The aliases that it reads stay on disk until it is garbage collected."""

    def __init__(self, options: CouchOptions) -> None:
        self._options = options
        self._aliases = CouchAliases(include_archived=options.include_archived)

    async def bodies(self, requests: Sequence[BodyRequest], max_bytes: int) -> _Bodies:
        """The bodies that CouchDB has. A tombstone in the first of the three is final."""
        async with open_http_store(self._options.http) as http:
            return await _BodyReader(http, self._options, self._aliases, max_bytes).bodies(requests)

    async def check(self) -> str:
        """Test whether the database exists."""
        async with open_http_store(self._options.http) as http:
            database = self._options.database
            if database is None:
                # PouchDB's server has no field `couchdb`.
                await http.fields(await http.get("/"), "read the welcome", version=str)
                return f"{http.address} answers; bodies are read from the documents that couchdb_refs name"
            response = await http.get(f"/{quote(database, safe='')}")
            if response.status == _NOT_FOUND:
                raise _no_database(http, database)
            count = (await http.fields(response, "read the database", doc_count=int))["doc_count"]
            return f"{http.address} has {count} documents in {database}"


@dataclass(frozen=True, slots=True)
class _AttachedBody:
    """A document whose text is in an attachment."""

    identity: str
    document: dict[str, Any]
    attachment: Attachment


class _BodyReader:
    """Reads bodies over one HTTP client."""

    def __init__(self, http: HttpStore, options: CouchOptions, aliases: CouchAliases, max_bytes: int) -> None:
        self._http = http
        self._options = options
        self._aliases = aliases
        self._max_bytes = max_bytes

    async def bodies(self, requests: Sequence[BodyRequest]) -> _Bodies:
        """Read bodies, each from the first of these that has it.

        1. The documents that couchdb_refs name, database by database.
        2. The documents of the configured database with the same id.
        3. Its documents whose metadata.document_id is the id.
        """
        by_database: dict[str, list[tuple[str, str]]] = {}
        for request in requests:
            for database, couch_id in references(request.refs):
                by_database.setdefault(database, []).append((couch_id, request.id))
        found: _Bodies = {}
        for database, pairs in sorted(by_database.items()):
            found |= await self._read(database, [pair for pair in pairs if pair[1] not in found])

        configured = self._options.database
        if configured is not None:
            ids = [request.id for request in requests if request.id not in found]
            found |= await self._read(configured, [(identity, identity) for identity in ids])
            if missing := [identity for identity in ids if identity not in found]:
                aliases = await self._aliases.find(self._http, configured, missing)
                found |= await self._read(configured, aliases)
        return found

    async def _read(self, database: str, pairs: Sequence[tuple[str, str]]) -> _Bodies:
        """The bodies of (CouchDB id, document id) pairs. If the response is too large, halve the pairs."""
        if not pairs:
            return {}
        try:
            documents = await self._documents(database, [couch_id for couch_id, _ in pairs])
        except ResponseTooLarge as error:
            if len(pairs) == 1:
                return {pairs[0][1]: too_large(error.start)}
            half = len(pairs) // 2
            first = await self._read(database, pairs[:half])
            return first | await self._read(database, pairs[half:])
        return await self._bodies_of(
            database,
            [(identity, documents[couch_id]) for couch_id, identity in pairs if couch_id in documents],
        )

    async def _documents(self, database: str, couch_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        response = await self._http.post(
            f"/{quote(database, safe='')}/_all_docs",
            {"keys": list(couch_ids)},
            {"include_docs": "true"},
            check=partial(_missing_rows, couch_ids),
        )
        if response.status == _NOT_FOUND:
            # The configured database must exist. A reference may name a deleted one.
            if database == self._options.database:
                raise _no_database(self._http, database)
            return {}
        rows = (await self._http.fields(response, "read documents", rows=list))["rows"]
        return {row["id"]: row["doc"] for row in rows if row.get("doc")}

    async def _bodies_of(self, database: str, documents: Iterable[tuple[str, dict[str, Any]]]) -> _Bodies:
        """The bodies of (document id, CouchDB document) pairs; attachments are read a few at a time."""
        found: _Bodies = {}
        attached: list[_AttachedBody] = []
        for identity, document in documents:
            if is_deleted_document(document, include_archived=self._options.include_archived):
                found[identity] = DELETED_BODY
                continue
            text = field_text(document, self._max_bytes)
            if text is None:
                attachment = text_attachment(document)
                if isinstance(attachment, Attachment):
                    attached.append(_AttachedBody(identity, document, attachment))
                    continue
                text = attachment
            if text is not None:
                found[identity] = body_of(document, text)

        with leaf_errors():
            for start in range(0, len(attached), _CONCURRENT_ATTACHMENTS):
                group = attached[start : start + _CONCURRENT_ATTACHMENTS]
                async with TaskGroup() as tasks:
                    reads = [tasks.create_task(self._attached_text(database, body)) for body in group]
                for body, read in zip(group, reads, strict=True):
                    if (text := read.result()) is not None:
                        found[body.identity] = body_of(body.document, text)
        return found

    async def _attached_text(self, database: str, body: _AttachedBody) -> str | InvalidBody | None:
        parts = (database, body.document["_id"], body.attachment.name)
        path = "/" + "/".join(quote(part, safe="") for part in parts)
        try:
            response = await self._http.get_bytes(path, self._max_bytes, body.attachment.size)
        except ResponseTooLarge as error:
            return too_large(error.start)
        if response.status == _NOT_FOUND:
            return None
        if response.status != OK:
            raise self._http.invalid(f"cannot read an attachment: it answers {response.status}")
        return decode_attachment(body.attachment, response.body)


def _missing_rows(couch_ids: Sequence[str], found: Any) -> str | None:
    """The fault of a response without one row for each id, in their order. A missing document has one too."""
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        # `HttpStore.fields` names it.
        return None
    keys = [row.get("key", row.get("id")) if isinstance(row, dict) else None for row in rows]
    if keys == list(couch_ids):
        return None
    return f"it answered {len(rows)} rows to the keys of {len(couch_ids)} documents, or rows of other keys"


def _no_database(http: HttpStore, database: str) -> JobFailed:
    return http.invalid(
        f"there is no database '{database}'", "set COUCH_DATABASE; Shardline never creates one"
    )
