"""The graph search of UDS3 in Neo4j.

Direct hits come first: those of a full-text index over :Document if there is one, else all documents whose
content or name contains the text. With hops, their neighbours follow, the nearest first, then by id.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, cast

import neo4j
from neo4j._exceptions import BoltError, BoltHandshakeError, BoltProtocolError
from neo4j.exceptions import (
    AuthError,
    ConfigurationError,
    DatabaseError,
    DriverError,
    Forbidden,
    Neo4jError,
)

from shardline_common.errors import FailureCode, JobFailed, ShardlineError, SourceUnavailable
from shardline_common.http.tls import is_tls_refused, tls_context
from shardline_common.job.findings import Certainty, Level
from shardline_common.job.spec import Query, SearchType
from shardline_common.runtime.retry import Backoff, TransientError, retry_attempts
from shardline_producer.sources.uds3.neo4j.cypher import (
    CypherStatement,
    by_content,
    by_index,
    deleted,
    left_out,
    neighbours,
)
from shardline_producer.sources.uds3.neo4j.lucene import lucene_query
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from shardline_producer.sources.uds3.scratch import ScratchDatabase
from shardline_producer.sources.uds3.spilled_lists import VisitedNodes
from shardline_producer.sources.uds3.store_ports import Hit, OnDeleted
from shardline_producer.sources.uds3.tombstones import deleted_statuses

_PAGE = 1000
_FRONTIER = 500
_SAMPLE = 10_000
_MAX_CONNECTIONS = 4
_BACKOFF = Backoff(base=0.2, cap=5.0)
_INDEXES = CypherStatement(
    "SHOW FULLTEXT INDEXES YIELD name, state, entityType, labelsOrTypes, properties, options "
    "WHERE entityType = 'NODE' AND state = 'ONLINE' AND 'Document' IN labelsOrTypes "
    "AND any(property IN properties WHERE property IN ['content', 'name']) "
    "RETURN name, options ORDER BY NOT 'content' IN properties, name",
    {},
)
_LATER = "fulltext.eventually_consistent"
_REFRESH = CypherStatement("CALL db.index.fulltext.awaitEventuallyConsistentIndexRefresh()", {})
_KEYS = CypherStatement(
    "MATCH (n:Document) WITH n LIMIT $count UNWIND keys(n) AS key RETURN DISTINCT key ORDER BY key",
    {"count": _SAMPLE},
)
_DATABASE_HINT = "set NEO4J_DATABASE"
_INFO = CypherStatement("CALL db.info() YIELD id, name, creationDate RETURN id, name, creationDate", {})
_COUNT = CypherStatement("MATCH (n:Document) RETURN count(n) AS documents", {})


class Neo4jRanker:
    """Implements `Ranker`. Documents up to `hops` edges away from a direct hit are hits too."""

    name: SearchType = "graph"

    def __init__(self, options: Neo4jOptions, hops: int = 0) -> None:
        self._options = options
        self._hops = hops
        self._statuses = deleted_statuses(include_archived=options.include_archived)
        self._hits_without_id = 0
        self._may_be_stale = False

    async def filter_fields(self) -> list[str]:
        """The property keys of the first documents."""
        async with open_graph(self._options) as graph:
            return [row["key"] for row in await graph.rows(_KEYS)]

    async def check(self) -> str:
        """Count the documents, and name the index that is searched."""
        async with open_graph(self._options) as graph:
            count = (await graph.rows(_COUNT))[0]["documents"]
            index = await graph.full_text_index()
        method = f"the full-text index '{index}'" if index else "CONTAINS (no full-text index over :Document)"
        return f"{self._options.address} has {count} documents, searched by {method}"

    async def identity(self) -> dict[str, Any]:
        """The id of the database, the time at which it was made, and the number of its documents."""
        async with open_graph(self._options) as graph:
            try:
                info = (await graph.rows(_INFO))[0]
            except JobFailed:
                # The user may read documents, and not call the procedure.
                info = {"id": None, "creationDate": None}
            count = (await graph.rows(_COUNT))[0]["documents"]
        return {"id": info["id"], "made": info["creationDate"], "documents": count}

    async def changed_since(self, planned: Mapping[str, Any]) -> str | None:
        """Compare ids and times, and whether there are documents."""
        found = await self.identity()
        if any(planned.get(name) and found[name] not in (None, planned[name]) for name in ("id", "made")):
            return "the database was made anew"
        return (
            "the database has no documents" if planned.get("documents") and not found["documents"] else None
        )

    def certainty(self) -> Certainty:
        """The driver raises an error for a list that the server did not end with its summary."""
        if self._may_be_stale:
            how = "its full-text index is filled later than the documents are written, and cannot be awaited"
            return Certainty(Level.UNPROVEN, how)
        if self._hits_without_id:
            how = f"{self._hits_without_id} nodes that match have neither a document_id nor an id"
            return Certainty(Level.COUNTED, how)
        return Certainty(Level.PROVEN, "the server ended each list in one transaction with its summary")

    def reports_deleted(self, query: Query) -> bool:  # noqa: ARG002 - the same for all queries
        """False, because a search reads only the documents that it finds."""
        return False

    async def rank(
        self,
        query: Query,
        on_deleted: OnDeleted | None = None,  # noqa: ARG002 - never given
    ) -> AsyncGenerator[list[Hit], None]:
        """The direct hits, then their neighbours, each with a score below that of all direct hits.

        1. Choose the statement: a full-text index if there is one, else CONTAINS.
        2. Return the direct hits as the server sends them.
        3. Visit the nodes around them, hop by hop.
        4. Return the visited documents that pass the filters, by distance.
        """
        text, filters = query.text or "", query.filters
        with ScratchDatabase() as database:
            visited, lowest = VisitedNodes(database), 0.0
            async with open_graph(self._options) as graph:
                self._may_be_stale = not await graph.refresh_index()
                if (index := await graph.full_text_index()) is None:
                    statement = by_content(text, filters, self._statuses)
                elif (words := lucene_query(text)) is not None:
                    statement = by_index(index, words, filters, self._statuses)
                else:
                    return
                async with aclosing(graph.pages(statement)) as pages:
                    async for page in pages:
                        yield [Hit(row["id"], row["score"]) for row in page]
                        lowest = page[-1]["score"]
                        if self._hops:
                            visited.add(0, ((node, row["id"], True) for row in page for node in row["nodes"]))
                for hop in range(1, self._hops + 1):
                    after = ""
                    while nodes := visited.at(hop - 1, after, _FRONTIER):
                        after = nodes[-1]
                        statement = neighbours(nodes, filters, self._statuses)
                        async with aclosing(graph.pages(statement)) as pages:
                            async for page in pages:
                                visited.add(hop, ((row["node"], row["id"], row["is_hit"]) for row in page))
            for near in visited.neighbours():
                yield [Hit(document, lowest / (1 + hop)) for document, hop in near]

    async def marked_hits(self, query: Query) -> AsyncGenerator[list[str], None]:
        """Implements `ReportsMarkedHits`; counts also the hits that have no id, which are no documents."""
        self._hits_without_id = 0
        async with open_graph(self._options) as graph:
            index, words = await graph.full_text_index(), query.text or ""
            if index is not None and (found := lucene_query(words)) is None:
                return
            words = words if index is None else found or ""
            statement = left_out(index, words, query.filters, self._statuses)
            async with aclosing(graph.pages(statement)) as pages:
                async for page in pages:
                    ids = [row["id"] for row in page if row["id"] is not None]
                    self._hits_without_id += len(page) - len(ids)
                    yield ids

    async def deleted_ids(self) -> AsyncGenerator[list[str], None]:
        """Implements `Ranker.deleted_ids` by one pass over the documents, which the server streams."""
        async with (
            open_graph(self._options) as graph,
            aclosing(graph.pages(deleted(self._statuses))) as pages,
        ):
            async for page in pages:
                yield [row["id"] for row in page]


class Neo4jGraph:
    """Reads one database."""

    def __init__(self, driver: neo4j.AsyncDriver, options: Neo4jOptions) -> None:
        self._driver = driver
        self._options = options

    async def full_text_index(self) -> str | None:
        """The full-text index to search: one over content before one over names, then by name."""
        rows = await self.rows(_INDEXES)
        return rows[0]["name"] if rows else None

    async def refresh_index(self) -> bool:
        """Wait until the index that is searched has all documents. False: the user may not wait for it."""
        rows = await self.rows(_INDEXES)
        if rows and rows[0]["options"].get("indexConfig", {}).get(_LATER):
            try:
                await self.rows(_REFRESH)
            except JobFailed:
                return False
        return True

    async def rows(self, statement: CypherStatement) -> list[dict[str, Any]]:
        """The rows of a small result."""
        async with aclosing(self.pages(statement)) as pages:
            return [row async for page in pages for row in page]

    async def pages(self, statement: CypherStatement) -> AsyncGenerator[list[dict[str, Any]], None]:
        """The rows of one read transaction, as the server sends them.

        Only the first page is retried: a new transaction may return other rows than those already returned.
        """

        async def attempt() -> tuple[AsyncGenerator[list[dict[str, Any]], None], list[dict[str, Any]]]:
            pages = self._transaction(statement)
            try:
                return pages, await anext(pages, [])
            except SourceUnavailable as error:
                raise TransientError(error) from error.__cause__

        pages, page = await retry_attempts(attempt, self._options.attempts, _BACKOFF, asyncio.sleep)
        async with aclosing(pages):
            while page:
                yield page
                page = await anext(pages, [])

    async def _transaction(self, statement: CypherStatement) -> AsyncGenerator[list[dict[str, Any]], None]:
        # The driver's type accepts only a literal, to keep values out of the text. The text has no values.
        query = neo4j.Query(cast("Any", statement.text), timeout=self._options.query_timeout)
        with _translated(self._options):
            async with self._driver.session(
                database=self._options.database,
                default_access_mode=neo4j.READ_ACCESS,
                fetch_size=_PAGE,
            ) as session:
                result = await session.run(query, dict(statement.parameters))
                with _read_as_sent(self._options):
                    while records := await result.fetch(_PAGE):
                        yield [record.data() for record in records]
                    # The list has ended only when the server has sent its summary.
                    await result.consume()


@asynccontextmanager
async def open_graph(options: Neo4jOptions) -> AsyncIterator[Neo4jGraph]:
    """A graph for reading; leaving the context closes its connections."""
    with _translated(options):
        tls: dict[str, Any] = {}
        if options.ca_file:
            # The driver reports a file that it cannot read as a server that it cannot reach.
            tls_context(options.ca_file)
            tls = {"encrypted": True, "trusted_certificates": neo4j.TrustCustomCAs(options.ca_file)}
        driver = neo4j.AsyncGraphDatabase.driver(
            options.uri,
            auth=(options.user, options.password or "") if options.user else None,
            connection_timeout=min(10.0, options.timeout),
            connection_acquisition_timeout=options.timeout,
            max_connection_pool_size=_MAX_CONNECTIONS,
            notifications_min_severity="OFF",
            user_agent="shardline",
            **tls,
        )
    async with driver:
        yield Neo4jGraph(driver, options)


@contextmanager
def _read_as_sent(options: Neo4jOptions) -> Iterator[None]:
    """Raise SourceUnavailable for a stream that the driver cannot decode: it was damaged on its way."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, struct.error) as error:
        message = f"its answer cannot be decoded: {type(error).__name__}: {error}"
        raise _unavailable(options, message) from error


@contextmanager
def _translated(options: Neo4jOptions) -> Iterator[None]:
    """Raise errors of the driver and the server as SourceUnavailable or JobFailed."""
    try:
        yield
    except ShardlineError:
        raise
    except (AuthError, Forbidden) as error:
        message = f"it refuses the credentials ({error.code})"
        hint = "check NEO4J_USER, NEO4J_PASSWORD and the user's rights to read"
        raise _invalid(options, message, hint) from error
    except (ConfigurationError, ValueError) as error:
        raise _invalid(options, str(error), "check NEO4J_URI") from error
    except Neo4jError as error:
        message, code = f"{error.code}: {error.message}", error.code or ""
        if error.is_retryable() or isinstance(error, DatabaseError) or _is_interrupted(code):
            raise _unavailable(options, message) from error
        raise _invalid(options, message, _DATABASE_HINT if "DatabaseNotFound" in code else None) from error
    except (DriverError, BoltError, OSError, TimeoutError) as error:
        message = f"{type(error).__name__}: {error}"
        if is_tls_refused(error):
            hint = "check NEO4J_URI, NEO4J_CA_FILE and the server's certificate"
            raise _invalid(options, message, hint) from error
        if isinstance(error, BoltHandshakeError | BoltProtocolError):
            raise _invalid(options, message, "check the port in NEO4J_URI: it is that of Bolt") from error
        raise _unavailable(options, message) from error


def _is_interrupted(code: str) -> bool:
    # The server ends transactions when it stops, or after their time-out.
    return "TimedOut" in code or code.endswith(("Terminated", "LockClientStopped"))


def _invalid(options: Neo4jOptions, message: str, hint: str | None) -> JobFailed:
    return JobFailed(FailureCode.SOURCE_INVALID, f"{options.address}: {message}", hint=hint)


def _unavailable(options: Neo4jOptions, message: str) -> SourceUnavailable:
    hint = "check NEO4J_URI, and that the server runs"
    return SourceUnavailable(f"{options.address} cannot be read ({message})", hint=hint)
