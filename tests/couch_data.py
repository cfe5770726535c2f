"""Fills CouchDB for the tests, over its HTTP API, without the adapter under test."""

import json
from typing import Any
from uuid import uuid4

import aiohttp

from shardline_producer.sources.uds3.couch.body_store import basic_auth
from tests.stores import Address


class CouchData:
    """One new database."""

    def __init__(self, address: Address) -> None:
        self._headers = basic_auth(address.user, address.password) if address.user else {}
        self.name = f"test-{uuid4().hex[:12]}"
        self._url = f"{address.url}/{self.name}"

    async def create(self, *documents: dict[str, Any]) -> None:
        """Create it, with these documents."""
        await self._ask("PUT", "", None)
        await self.post("/_bulk_docs", {"docs": list(documents)})

    async def delete(self, path: str) -> None:
        """Delete a document, or an attachment `id/name`, in its newest revision."""
        document = await self._ask("GET", "/" + path.partition("/")[0], None)
        await self._ask("DELETE", f"/{path}?rev={document['_rev']}", None)

    async def update(self, name: str, **fields: Any) -> None:
        """Set fields of a document."""
        document = await self._ask("GET", "/" + name, None)
        await self.post("/_bulk_docs", {"docs": [document | fields]})

    async def drop(self) -> None:
        """Delete the database."""
        await self._ask("DELETE", "", None)

    async def post(self, path: str, body: Any) -> Any:
        """POST to a path of the database. Returns the JSON of the answer."""
        return await self._ask("POST", path, body)

    async def _ask(self, method: str, path: str, body: Any) -> Any:
        async with (
            aiohttp.ClientSession(headers=self._headers) as session,
            session.request(method, self._url + path, json=body) as answer,
        ):
            assert answer.status < 300, await answer.text()
            return json.loads(await answer.text())
