"""Whether CouchDB marks documents as deleted now, read without their texts where nothing has changed."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from shardline_common.http.client import ResponseTooLarge
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.http_store import HttpStore
from shardline_producer.sources.uds3.couch.aliases import CouchAliases
from shardline_producer.sources.uds3.couch.body_text import is_deleted_document, references
from shardline_producer.sources.uds3.couch.catalogue import CouchCatalogue
from shardline_producer.sources.uds3.couch.documents import CouchRow, no_database, read_rows
from shardline_producer.sources.uds3.store_ports import MAX_BODIES, BodyRequest


class MarkReader:
    """Reads marks over one HTTP client.

    A document that still has the revision that the catalogue lists without a mark is not read again.
    """

    def __init__(
        self,
        http: HttpStore,
        database: str | None,
        catalogue: CouchCatalogue,
        aliases: CouchAliases,
        *,
        include_archived: bool,
    ) -> None:
        self._http = http
        self._database = database
        self._catalogue = catalogue
        self._aliases = aliases
        self._include_archived = include_archived

    async def deleted(self, requests: Sequence[BodyRequest]) -> set[str]:
        """Those of the documents that are deleted in CouchDB.

        1. A deletion of a document that couchdb_refs name, or of the one with the same id, counts.
        2. Without one with the same id, the first document that names the id in its metadata decides.
        """
        names: dict[str, dict[str, set[str]]] = {}

        def add(database: str, couch_id: str, identity: str) -> None:
            names.setdefault(database, {}).setdefault(couch_id, set()).add(identity)

        for request in requests:
            for database, couch_id in references(request.refs):
                add(database, couch_id, request.id)
            if self._database is not None:
                add(self._database, request.id, request.id)
        deleted, own = set[str](), set[str]()
        for database, known in sorted(names.items()):
            states = await self._states(database, list(known))
            if database == self._database:
                own = set(states)
            deleted |= {one for couch_id, gone in states.items() if gone for one in known[couch_id]}
        unnamed = [request.id for request in requests if request.id not in own]
        if self._database is not None and unnamed:
            pairs = await self._aliases.find(self._http, self._database, unnamed)
            states = await self._states(self._database, [couch_id for couch_id, _ in pairs])
            deleted |= {identity for couch_id, identity in pairs if states.get(couch_id)}
        return deleted

    async def _states(self, database: str, couch_ids: Sequence[str]) -> dict[str, bool]:
        """Whether each of these documents that exists or existed is deleted, by its id."""
        if not couch_ids:
            return {}
        rows = await read_rows(self._http, database, couch_ids, documents=False)
        if rows is None:
            # A reference may name a database that was deleted. The configured one must exist.
            if database == self._database:
                raise no_database(self._http, database)
            return {}
        live: Mapping[str, str] = {}
        if database == self._database:
            live = await run_in_thread(partial(self._catalogue.live_revisions, list(rows)))
        states = {name: row.removed for name, row in rows.items()}
        changed = [name for name, row in rows.items() if not row.removed and live.get(name) != row.revision]
        for start in range(0, len(changed), MAX_BODIES):
            states |= await self._read(database, changed[start : start + MAX_BODIES])
        return states

    async def _read(self, database: str, couch_ids: Sequence[str]) -> dict[str, bool]:
        try:
            rows = await read_rows(self._http, database, couch_ids)
        except ResponseTooLarge:
            if len(couch_ids) == 1:
                # Its marks cannot be read; the catalogue says so in the findings.
                return {couch_ids[0]: False}
            half = len(couch_ids) // 2
            return await self._read(database, couch_ids[:half]) | await self._read(database, couch_ids[half:])
        return dict(self._marked((rows or {}).items()))

    def _marked(self, rows: Iterable[tuple[str, CouchRow]]) -> Iterable[tuple[str, bool]]:
        for name, row in rows:
            document = row.document or {}
            yield name, row.removed or is_deleted_document(document, include_archived=self._include_archived)
