"""Bodies from CouchDB, over its HTTP API.

A body is read from the first of these that has it: the documents that couchdb_refs of the master table
name; the document with the same id in COUCH_DATABASE; the document there with this metadata.document_id.
"""

from base64 import b64encode
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from shardline_common.errors import SourceUnavailable
from shardline_common.http.client import OK, ResponseTooLarge
from shardline_common.job.findings import Certainty, Level
from shardline_common.runtime.task_group import TaskGroup
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.http_store import HttpStore, HttpStoreOptions, open_http_store
from shardline_producer.sources.uds3.body_limit import too_large
from shardline_producer.sources.uds3.couch.aliases import CouchAliases
from shardline_producer.sources.uds3.couch.attachments import (
    Attachment,
    attachment_fault,
    content_of,
    decode_attachment,
    text_attachment,
)
from shardline_producer.sources.uds3.couch.body_text import (
    body_of,
    field_text,
    is_deleted_document,
    may_have_lost_its_text,
    references,
)
from shardline_producer.sources.uds3.couch.catalogue import CouchCatalogue
from shardline_producer.sources.uds3.couch.documents import (
    NOT_FOUND,
    database_path,
    identity_of,
    no_database,
    read_rows,
    why_other,
)
from shardline_producer.sources.uds3.couch.marks import MarkReader
from shardline_producer.sources.uds3.store_ports import (
    DELETED_BODY,
    BodyRequest,
    DocumentBody,
    InvalidBody,
)

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
    """Implements `BodyStore` and `MarkedBodyStore`. Its catalogue is on disk until it is collected."""

    store = "couchdb"

    def __init__(self, options: CouchOptions) -> None:
        self._options = options
        self._catalogue = CouchCatalogue(include_archived=options.include_archived)
        self._aliases = CouchAliases(self._catalogue, include_archived=options.include_archived)

    async def bodies(self, requests: Sequence[BodyRequest], max_bytes: int) -> _Bodies:
        """The bodies that CouchDB has. A tombstone in the first of the three is final."""
        async with open_http_store(self._options.http) as http:
            return await _BodyReader(http, self._options, self._aliases, max_bytes).bodies(requests)

    async def deleted(self, requests: Sequence[BodyRequest]) -> set[str]:
        """Those of the documents that CouchDB marks deleted now, or whose document was deleted there."""
        async with open_http_store(self._options.http) as http:
            reader = MarkReader(
                http,
                self._options.database,
                self._catalogue,
                self._aliases,
                include_archived=self._options.include_archived,
            )
            return await reader.deleted(requests)

    async def deleted_ids(self) -> AsyncGenerator[list[str], None]:
        """The documents of the configured database that are marked or were deleted, by one pass over it."""
        if self._options.database is None:
            return
        async with open_http_store(self._options.http) as http:
            await self._catalogue.read_marks(http, self._options.database)
        pages = self._catalogue.deleted_pages()
        while page := await run_in_thread(partial(next, pages, [])):
            yield page

    def certainty(self) -> Certainty:
        """How the list of marks is proven."""
        if self._options.database is None:
            why = "COUCH_DATABASE is not set: marks are seen only in documents that couchdb_refs name"
            return Certainty(Level.UNPROVEN, why)
        return self._catalogue.certainty

    async def identity(self) -> dict[str, Any]:
        """When the database was made, and how many changes it has had."""
        if self._options.database is None:
            return {}
        async with open_http_store(self._options.http) as http:
            return identity_of(await _read_database(http, self._options.database))

    async def changed_since(self, planned: Mapping[str, Any]) -> str | None:
        """Compare the times at which the database was made, and the numbers of changes."""
        return why_other(planned, await self.identity()) if planned else None

    async def check(self) -> str:
        """Test whether the database exists."""
        async with open_http_store(self._options.http) as http:
            database = self._options.database
            if database is None:
                # PouchDB's server has no field `couchdb`.
                await http.fields(await http.get("/"), "read the welcome", version=str)
                return f"{http.address} answers; bodies are read from the documents that couchdb_refs name"
            count = (await _read_database(http, database))["doc_count"]
            return f"{http.address} has {count} documents in {database}"


async def _read_database(http: HttpStore, database: str) -> dict[str, Any]:
    response = await http.get(database_path(database))
    if response.status == NOT_FOUND:
        raise no_database(http, database)
    return await http.fields(response, "read the database", doc_count=int)


@dataclass(frozen=True, slots=True)
class _AttachedBody:
    """A document whose text is in an attachment."""

    identity: str
    document: Mapping[str, Any]
    attachment: Attachment


class _BodyReader:
    """Reads bodies over one HTTP client."""

    def __init__(self, http: HttpStore, options: CouchOptions, aliases: CouchAliases, max_bytes: int) -> None:
        self._http = http
        self._options = options
        self._aliases = aliases
        self._max_bytes = max_bytes

    async def bodies(self, requests: Sequence[BodyRequest]) -> _Bodies:
        """Read bodies, each from the first of these that has it. A deletion in 1 or 2 is final.

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

    async def _read(
        self, database: str, pairs: Sequence[tuple[str, str]], seen: Mapping[str, str] | None = None
    ) -> _Bodies:
        """The bodies of (CouchDB id, document id) pairs. If the response is too large, halve the pairs.

        `seen`: the revisions, by document id, whose attachment was not found.
        """
        if not pairs:
            return {}
        try:
            rows = await read_rows(self._http, database, [couch_id for couch_id, _ in pairs])
        except ResponseTooLarge as error:
            if len(pairs) == 1:
                return {pairs[0][1]: too_large(error.start)}
            half = len(pairs) // 2
            first = await self._read(database, pairs[:half], seen)
            return first | await self._read(database, pairs[half:], seen)
        if rows is None:
            # The configured database must exist. A reference may name a deleted one.
            if database == self._options.database:
                raise no_database(self._http, database)
            return {}
        known = [(identity, rows[couch_id]) for couch_id, identity in pairs if couch_id in rows]
        found: _Bodies = {identity: DELETED_BODY for identity, row in known if row.removed}
        documents = [(identity, row.document) for identity, row in known if row.document is not None]
        if seen is not None:
            self._check_changed(documents, seen)
        return found | await self._bodies_of(database, documents, may_ask_again=seen is None)

    def _check_changed(
        self, documents: Iterable[tuple[str, Mapping[str, Any]]], seen: Mapping[str, str]
    ) -> None:
        for identity, document in documents:
            if document.get("_attachments") and document.get("_rev", "") == seen.get(identity):
                raise SourceUnavailable(
                    f"{self._http.address} lists an attachment of '{document['_id']}' and does not find it",
                    hint="look for a proxy that changes its answers, or repair the database",
                )

    async def _bodies_of(
        self, database: str, documents: Iterable[tuple[str, Mapping[str, Any]]], *, may_ask_again: bool
    ) -> _Bodies:
        """The bodies of (document id, CouchDB document) pairs; attachments are read a few at a time.

        A document whose attachment is gone is read again, once: it was changed or removed in between.
        """
        found: _Bodies = {}
        attached: list[_AttachedBody] = []
        for identity, document in documents:
            body = self._body_or_attachment(document)
            if isinstance(body, Attachment):
                attached.append(_AttachedBody(identity, document, body))
            elif body is not None:
                found[identity] = body

        gone: list[_AttachedBody] = []
        with leaf_errors():
            for start in range(0, len(attached), _CONCURRENT_ATTACHMENTS):
                group = attached[start : start + _CONCURRENT_ATTACHMENTS]
                async with TaskGroup() as tasks:
                    reads = [tasks.create_task(self._attached_text(database, one)) for one in group]
                for one, read in zip(group, reads, strict=True):
                    if (text := read.result()) is None:
                        gone.append(one)
                    else:
                        found[one.identity] = body_of(one.document, text)
        if gone:
            if not may_ask_again:
                raise SourceUnavailable(
                    f"{self._http.address}: '{gone[0].document['_id']}' changed each time it was read",
                    hint="try again when nothing writes to the database",
                )
            pairs = [(str(one.document["_id"]), one.identity) for one in gone]
            seen = {one.identity: str(one.document.get("_rev", "")) for one in gone}
            found |= dict.fromkeys(seen, DELETED_BODY) | await self._read(database, pairs, seen)
        return found

    def _body_or_attachment(
        self, document: Mapping[str, Any]
    ) -> DocumentBody | InvalidBody | Attachment | None:
        """The body of a document, or the attachment that has its text; None if it never had a text."""
        if is_deleted_document(document, include_archived=self._options.include_archived):
            return DELETED_BODY
        text = field_text(document, self._max_bytes)
        if text is not None:
            return body_of(document, text)
        attachment = text_attachment(document)
        if attachment is None and may_have_lost_its_text(document):
            # Another store may still have the text that was removed here.
            return InvalidBody(DeadLetterReason.NO_CONTENT)
        return attachment

    async def _attached_text(self, database: str, body: _AttachedBody) -> str | InvalidBody | None:
        """The text of an attachment of exactly the revision that was read; None if it is gone."""
        attachment, revision = body.attachment, body.document.get("_rev")
        name = "/".join(quote(part, safe="") for part in (str(body.document["_id"]), attachment.name))
        try:
            response = await self._http.get_bytes(
                f"{database_path(database)}/{name}",
                {"rev": revision} if isinstance(revision, str) else {},
                limit=self._max_bytes,
                check=partial(attachment_fault, attachment, self._max_bytes),
            )
        except ResponseTooLarge as error:
            return too_large(error.start)
        if response.status == NOT_FOUND:
            return None
        if response.status != OK:
            raise self._http.invalid(f"cannot read an attachment: it answers {response.status}")
        data = content_of(response, self._max_bytes)
        if data is None:
            raise AssertionError("the check has decompressed it")
        return decode_attachment(attachment, data, self._max_bytes)
