"""ThemisDB for `shardline doctor`: whether it answers, and the indexes that a user wants created."""

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
    """Create indexes and fill them from the rows; one that exists is filled again. A sentence for each.

    Raises:
        JobFailed: the server refuses.
        SourceUnavailable: the server cannot be reached.
    """
    done = []
    for index in indexes:
        for path, body in index.calls(table):
            try:
                answer = await client.post(path, body)
            except QueryRejected as error:
                raise JobFailed(
                    FailureCode.SOURCE_INVALID,
                    f"ThemisDB refuses POST {path} for '{table}.{index.column}': {error}",
                ) from None
        done.append(f"{index.kind} index on {table}.{index.column}: {answer.get('entry_count', '?')} entries")
    return done


async def check_server(client: ThemisClient) -> str:
    """Check that the server answers and that the token may read. A sentence for `doctor`.

    Raises:
        JobFailed: the token is refused.
        SourceUnavailable: the server cannot be reached.
    """
    version = await client.health()
    # The server checks the token before it looks for the index, which this table does not have.
    with suppress(QueryRejected):
        await client.query(TableQuery(_NO_TABLE, "id", {}).page(None, 1, keys=True))
    return f"ThemisDB {version} answers and accepts the token"
