"""Neo4j: the graph search of UDS3. The one file that knows the driver.

Direct hits come first: by a full-text index over :Document where there is one, else all whose content
or name contains the text. With hops, the documents around them follow, the nearest first, by id.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, cast

import neo4j
from neo4j.exceptions import AuthError, ConfigurationError, DriverError, Forbidden, Neo4jError

from shardline_common.errors import FailureCode, JobFailed, ShardlineError, SourceUnavailable
from shardline_common.job.spec import Query, SearchType
from shardline_producer.sources.uds3.neo4j.cypher import Statement, by_content, by_index, neighbours, removed
from shardline_producer.sources.uds3.neo4j.lucene import lucene_query
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from shardline_producer.sources.uds3.spilled_lists import Reached, scratch
from shardline_producer.sources.uds3.store_ports import Hit, Tell
from shardline_producer.sources.uds3.tombstones import ended

_PAGE = 1000
_FRONTIER = 500
_SAMPLE = 10_000
_CONNECTIONS = 4
_INDEXES = Statement(
    "SHOW FULLTEXT INDEXES YIELD name, state, entityType, labelsOrTypes, properties "
    "WHERE entityType = 'NODE' AND state = 'ONLINE' AND 'Document' IN labelsOrTypes "
    "AND any(property IN properties WHERE property IN ['content', 'name']) "
    "RETURN name ORDER BY NOT 'content' IN properties, name",
    {},
)
_KEYS = Statement(
    "MATCH (n:Document) WITH n LIMIT $most UNWIND keys(n) AS key RETURN DISTINCT key ORDER BY key",
    {"most": _SAMPLE},
)
_COUNT = Statement("MATCH (n:Document) RETURN count(n) AS documents", {})


class Neo4jRanker:
    """Implements `Ranker`. `hops`: how many edges away from a direct hit a document is still one."""

    name: SearchType = "graph"

    def __init__(self, options: Neo4jOptions, hops: int = 0) -> None:
        self._options = options
        self._hops = hops
        self._ended = ended(include_archived=options.include_archived)

    async def fields(self) -> list[str]:
        """The property keys of the first documents."""
        async with _graph(self._options) as graph:
            return [row["key"] for row in await graph.all(_KEYS)]

    async def check(self) -> str:
        """Count documents, and tell how text is searched."""
        async with _graph(self._options) as graph:
            count = (await graph.all(_COUNT))[0]["documents"]
            index = await graph.index()
        way = f"the full-text index '{index}'" if index else "CONTAINS (no full-text index over :Document)"
        return f"{self._options.place} has {count} documents, searched by {way}"

    def sees_all(self, query: Query) -> bool:  # noqa: ARG002 - whatever is asked for
        """Never: a search of the graph comes by what it finds."""
        return False

    async def rank(self, query: Query, tell: Tell | None = None) -> AsyncGenerator[list[Hit], None]:  # noqa: ARG002 - as above
        """Direct hits, then, with hops, their neighbours: each of those scores below every direct hit."""
        with scratch() as connection:
            reached, lowest = Reached(connection), 0.0
            async with _graph(self._options) as graph:
                statement = await self._direct(graph, query)
                if statement is None:
                    return
                async with aclosing(graph.pages(statement)) as pages:
                    async for page in pages:
                        yield [Hit(row["id"], row["score"]) for row in page]
                        lowest = page[-1]["score"]
                        if self._hops:
                            reached.add(0, ((node, row["id"], True) for row in page for node in row["nodes"]))
                for hop in range(1, self._hops + 1):
                    await self._spread(graph, query, reached, hop)
            for near in reached.neighbours():
                yield [Hit(document, lowest / (1 + hop)) for document, hop in near]

    async def removed(self) -> AsyncGenerator[list[str], None]:
        """One pass over the documents; nothing is gathered, here or there."""
        async with (
            _graph(self._options) as graph,
            aclosing(graph.pages(removed(self._ended))) as pages,
        ):
            async for page in pages:
                yield [row["id"] for row in page]

    async def _direct(self, graph: "_Graph", query: Query) -> Statement | None:
        text, index = query.text or "", await graph.index()
        if index is None:
            return by_content(text, query.filters, self._ended)
        words = lucene_query(text)
        return by_index(index, words, query.filters, self._ended) if words else None

    async def _spread(self, graph: "_Graph", query: Query, reached: Reached, hop: int) -> None:
        after = ""
        while nodes := reached.at(hop - 1, after, _FRONTIER):
            after = nodes[-1]
            async with aclosing(graph.pages(neighbours(nodes, query.filters, self._ended))) as pages:
                async for page in pages:
                    reached.add(hop, ((row["node"], row["id"], row["fits"]) for row in page))


class _Graph:
    """Reads of one database."""

    def __init__(self, driver: neo4j.AsyncDriver, options: Neo4jOptions) -> None:
        self._driver = driver
        self._options = options

    async def index(self) -> str | None:
        """The full-text index to search by: one over content before one over names, then by name."""
        rows = await self.all(_INDEXES)
        return rows[0]["name"] if rows else None

    async def all(self, statement: Statement) -> list[dict[str, Any]]:
        """The rows of a small result."""
        async with aclosing(self.pages(statement)) as pages:
            return [row async for page in pages for row in page]

    async def pages(self, statement: Statement) -> AsyncGenerator[list[dict[str, Any]], None]:
        """The rows of one read transaction, as the server sends them; tried again until one has come."""
        started = False
        for attempt in range(1, self._options.attempts + 1):
            try:
                async with aclosing(self._once(statement)) as pages:
                    async for page in pages:
                        started = True
                        yield page
            except SourceUnavailable:
                if started or attempt == self._options.attempts:
                    raise
                await asyncio.sleep(random.uniform(0.0, 0.2 * 2**attempt))  # noqa: S311 - jitter
            else:
                return

    async def _once(self, statement: Statement) -> AsyncGenerator[list[dict[str, Any]], None]:
        # The text is one of ours and holds no value; the driver's type wants a literal.
        query = neo4j.Query(cast("Any", statement.text), timeout=self._options.query_timeout)
        with _translated(self._options):
            async with self._driver.session(
                database=self._options.database,
                default_access_mode=neo4j.READ_ACCESS,
                fetch_size=_PAGE,
            ) as session:
                result = await session.run(query, dict(statement.parameters))
                while records := await result.fetch(_PAGE):
                    yield [record.data() for record in records]


@asynccontextmanager
async def _graph(options: Neo4jOptions) -> AsyncIterator[_Graph]:
    with _translated(options):
        trust: dict[str, Any] = {}
        if options.ca_file:
            trust = {"encrypted": True, "trusted_certificates": neo4j.TrustCustomCAs(options.ca_file)}
        driver = neo4j.AsyncGraphDatabase.driver(
            options.uri,
            auth=(options.user, options.password or "") if options.user else None,
            connection_timeout=min(10.0, options.timeout),
            connection_acquisition_timeout=options.timeout,
            max_connection_pool_size=_CONNECTIONS,
            notifications_min_severity="OFF",
            user_agent="shardline",
            **trust,
        )
    async with driver:
        yield _Graph(driver, options)


@contextmanager
def _translated(options: Neo4jOptions) -> Iterator[None]:
    """Raise what goes wrong inside as one of ours."""
    try:
        yield
    except ShardlineError:
        raise
    except (AuthError, Forbidden) as error:
        raise _invalid(options, f"it refuses the credentials ({error.code})", _SECRETS) from error
    except (ConfigurationError, ValueError) as error:
        raise _invalid(options, str(error), "check NEO4J_URI") from error
    except Neo4jError as error:
        if error.is_retryable() or "TimedOut" in (error.code or ""):
            raise _unavailable(options, f"{error.code}: {error.message}") from error
        raise _invalid(options, f"{error.code}: {error.message}", _hint(error)) from error
    except (DriverError, OSError, TimeoutError) as error:
        raise _unavailable(options, f"{type(error).__name__}: {error}") from error


_SECRETS = "check NEO4J_USER, NEO4J_PASSWORD and the user's rights to read"


def _hint(error: Neo4jError) -> str | None:
    return "set NEO4J_DATABASE" if "DatabaseNotFound" in (error.code or "") else None


def _invalid(options: Neo4jOptions, message: str, hint: str | None) -> JobFailed:
    return JobFailed(FailureCode.SOURCE_INVALID, f"{options.place}: {message}", hint=hint)


def _unavailable(options: Neo4jOptions, message: str) -> SourceUnavailable:
    hint = "is it up? NEO4J_URI tells where it is"
    return SourceUnavailable(f"{options.place} cannot be read ({message})", hint=hint)
