"""What `doctor` does with ThemisDB: ask whether it answers, and make indexes when a user wants that."""

from contextlib import suppress

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.spec import Query, ThemisSource
from shardline_producer.sources.themis.client import Rejected, ThemisClient
from shardline_producer.sources.themis.conditions import Conditions
from shardline_producer.sources.themis.queries import MissingIndex, Target

_NO_TABLE = "shardline_probe"


def needed(source: ThemisSource, query: Query) -> list[MissingIndex]:
    """A range index on the key column, and an equality index for all that the server can filter by."""
    conditions = Conditions.of(source, query)
    columns = [*conditions.equal, *conditions.optional]
    return [MissingIndex(source.key, "range"), *(MissingIndex(name, "equality") for name in columns)]


async def create(client: ThemisClient, table: str, wanted: list[MissingIndex]) -> list[str]:
    """Make indexes and fill them from the rows there are; one that exists is filled anew. What was done.

    Raises:
        JobFailed: the server refuses.
    """
    done = []
    for index in wanted:
        for path, body in index.calls(table):
            try:
                answer = await client.post(path, body)
            except Rejected as error:
                raise JobFailed(
                    FailureCode.SOURCE_INVALID,
                    f"ThemisDB refuses POST {path} for '{table}.{index.column}': {error}",
                ) from None
        done.append(f"{index.kind} index on {table}.{index.column}: {answer.get('entry_count', '?')} entries")
    return done


async def check(client: ThemisClient) -> str:
    """Ask for the version, and whether the token may read.

    Raises:
        JobFailed: the token is refused.
        SourceUnavailable: the server is away.
    """
    version = await client.health()
    # A refusal for want of an index comes behind the check of the token.
    with suppress(Rejected):
        await client.query(Target(_NO_TABLE, "id", {}).page(None, 1, keys=True))
    return f"ThemisDB {version} answers, and takes the token"
