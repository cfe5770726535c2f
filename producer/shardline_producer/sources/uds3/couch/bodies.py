"""CouchDB: the bodies of UDS3's documents, over its HTTP API.

A body is looked for where the master table's couchdb_refs point, then under the document's id in
COUCH_DATABASE, then in the document there whose metadata.document_id names it.
"""

import asyncio
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from shardline_common.errors import JobFailed
from shardline_common.http.client import AnswerTooLarge
from shardline_common.runtime.tasks import leaf_errors
from shardline_producer.sources.http_store import HttpStore, HttpStoreOptions, open_http_store
from shardline_producer.sources.uds3.couch.body_ids import CouchNames
from shardline_producer.sources.uds3.couch.body_text import (
    Attachment,
    attachment_of,
    body,
    decoded,
    is_gone,
    names_in,
    text_of,
    too_large,
)
from shardline_producer.sources.uds3.store_ports import REMOVED, Body, Unreadable, Wanted

_MISSING = 404
_FILES_AT_ONCE = 4
_Found = dict[str, Body | Unreadable]
_Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class CouchOptions:
    """Where the bodies are. `database` None: only where couchdb_refs point."""

    http: HttpStoreOptions
    database: str | None = None
    include_archived: bool = False


def basic(user: str, password: str) -> dict[str, str]:
    """The header of basic authentication."""
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


class CouchBodies:
    """Implements `Bodies`. What it learns of names in a database it keeps, on disk, while it lives."""

    def __init__(self, options: CouchOptions) -> None:
        self._options = options
        self._names = CouchNames(include_archived=options.include_archived)

    async def bodies(self, wanted: Sequence[Wanted], longest: int) -> dict[str, Body | Unreadable]:
        """The bodies that are there."""
        async with open_http_store(self._options.http) as http:
            return await _Shelves(http, self._options, self._names, longest).bodies(wanted)

    async def check(self) -> str:
        """Look for the database."""
        async with open_http_store(self._options.http) as http:
            database = self._options.database
            if database is None:
                await http.json(await http.get("/"), "read the welcome")
                return f"{http.place} answers; bodies are looked for where couchdb_refs point"
            answer = await http.get(f"/{quote(database, safe='')}")
            if answer.status == _MISSING:
                raise _no_database(http, database)
            count = (await http.json(answer, "read the database"))["doc_count"]
            return f"{http.place} has {count} documents in {database}"


class _Shelves:
    """The bodies of one call, over one client."""

    def __init__(self, http: HttpStore, options: CouchOptions, names: CouchNames, longest: int) -> None:
        self._http = http
        self._options = options
        self._names = names
        self._longest = longest

    async def bodies(self, wanted: Sequence[Wanted]) -> dict[str, Body | Unreadable]:
        """The bodies that are there. A mark of deletion, wherever a document is found first, is final."""
        places: dict[str, list[_Place]] = {}
        for one in wanted:
            for database, name in names_in(one.refs):
                places.setdefault(database, []).append((name, one.id))
        found: _Found = {}
        for database, pairs in sorted(places.items()):
            left = [(name, identity) for name, identity in pairs if identity not in found]
            found |= await self._by_name(database, left)
        if self._options.database is not None:
            others = [one.id for one in wanted if one.id not in found]
            found |= await self._of_settings(self._options.database, others)
        return found

    async def _of_settings(self, database: str, identities: Sequence[str]) -> _Found:
        found = await self._by_name(database, [(one, one) for one in identities])
        missing = [identity for identity in identities if identity not in found]
        if missing:
            found |= await self._by_name(database, await self._names.named(self._http, database, missing))
        return found

    async def _by_name(self, database: str, places: Sequence[_Place]) -> _Found:
        """The bodies of documents, by the ids that their names stand for."""
        if not places:
            return {}
        try:
            documents = await self._documents(database, [name for name, _ in places])
        except AnswerTooLarge as error:
            if len(places) == 1:
                return {places[0][1]: too_large(error.start)}
            half = len(places) // 2
            first = await self._by_name(database, places[:half])
            return first | await self._by_name(database, places[half:])
        there = [(identity, documents[name]) for name, identity in places if name in documents]
        return await self._read(database, there)

    async def _documents(self, database: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        answer = await self._http.post(
            f"/{quote(database, safe='')}/_all_docs", {"keys": list(names)}, {"include_docs": "true"}
        )
        if answer.status == _MISSING:
            # A reference into a database that is gone leads nowhere; the one of the settings must be there.
            if database == self._options.database:
                raise _no_database(self._http, database)
            return {}
        rows = (await self._http.json(answer, "read documents"))["rows"]
        return {row["id"]: row["doc"] for row in rows if row.get("doc")}

    async def _read(self, database: str, documents: Iterable[tuple[str, dict[str, Any]]]) -> _Found:
        found: _Found = {}
        files: list[_File] = []
        for identity, document in documents:
            if is_gone(document, include_archived=self._options.include_archived):
                found[identity] = REMOVED
                continue
            text = text_of(document, self._longest)
            if text is None:
                file = attachment_of(document)
                if isinstance(file, Attachment):
                    files.append(_File(identity, document, file))
                    continue
                text = file
            if text is not None:
                found[identity] = body(document, text)
        with leaf_errors():
            return found | await self._texts_of(database, files)

    async def _texts_of(self, database: str, files: Sequence["_File"]) -> _Found:
        found: _Found = {}
        for start in range(0, len(files), _FILES_AT_ONCE):
            group = files[start : start + _FILES_AT_ONCE]
            async with asyncio.TaskGroup() as tasks:
                reads = [tasks.create_task(self._text(database, file)) for file in group]
            for file, read in zip(group, reads, strict=True):
                text = read.result()
                if text is not None:
                    found[file.identity] = body(file.document, text)
        return found

    async def _text(self, database: str, file: "_File") -> str | Unreadable | None:
        parts = (database, file.document["_id"], file.attachment.name)
        try:
            answer = await self._http.get(
                "/" + "/".join(quote(part, safe="") for part in parts), most=self._longest
            )
        except AnswerTooLarge as error:
            return too_large(error.start)
        if answer.status == _MISSING:
            return None
        if answer.status != 200:  # noqa: PLR2004 - OK
            raise self._http.invalid(f"cannot read an attachment: it answers {answer.status}")
        return decoded(file.attachment, answer.body)


@dataclass(frozen=True, slots=True)
class _File:
    """A document whose text is in a file."""

    identity: str
    document: dict[str, Any]
    attachment: Attachment


def _no_database(http: HttpStore, database: str) -> JobFailed:
    return http.invalid(
        f"there is no database '{database}'", "set COUCH_DATABASE; Shardline never creates one"
    )
