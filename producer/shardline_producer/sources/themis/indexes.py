"""ThemisDB for `shardline doctor`: the check of the server, and the creation of indexes."""

from contextlib import suppress

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.spec import Query, ThemisSource
from shardline_producer.sources.themis.client import QueryRejected, ThemisClient
from shardline_producer.sources.themis.conditions import Conditions
from shardline_producer.sources.themis.queries import MissingIndex, TableQuery

_NO_TABLE = "shardline_probe"


def required_indexes(source: ThemisSource, query: Query) -> list[MissingIndex]:
    """A range index on the key column, and an equality index on each column that the server may filter by."""
    conditions = Conditions.of(source, query)
    columns = [*conditions.equal, *conditions.optional]
    return [MissingIndex(source.key, "range"), *(MissingIndex(name, "equality") for name in columns)]


async def create_indexes(client: ThemisClient, table: str, indexes: list[MissingIndex]) -> list[str]:
    """Create indexes and fill them from the rows; fill existing ones again. Returns a sentence for each.

    Raises:
        JobFailed: the server refuses a request.
        SourceUnavailable: the server cannot be reached.
    """
    done = []
    for index in indexes:
        for path, body in index.calls(table):
            try:
                response = await client.post(path, body)
            except QueryRejected as error:
                raise JobFailed(
                    FailureCode.SOURCE_INVALID,
                    f"ThemisDB refuses POST {path} for '{table}.{index.column}': {error}",
                ) from None
        count = response.get("entry_count", "?")
        done.append(f"{index.kind} index on {table}.{index.column}: {count} entries")
    return done


async def check_server(client: ThemisClient) -> str:
    """Check that the server can be reached and that the token may read. Returns a sentence for `doctor`.

    Raises:
        JobFailed: the token is refused.
        SourceUnavailable: the server cannot be reached.
    """
    version = await client.health()
    # The server checks the token before it looks for the index, which this table does not have.
    with suppress(QueryRejected):
        await client.query(TableQuery(_NO_TABLE, "id", {}).page(None, 1, keys=True))
    # POST /query and GET /entities are different actions for the policies of the server.
    with suppress(QueryRejected):
        await client.entity(_NO_TABLE, "id")
    return f"ThemisDB {version} answers and accepts the token"
