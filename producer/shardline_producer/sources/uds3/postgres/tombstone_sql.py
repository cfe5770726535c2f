"""The marks of deleted documents as conditions over UDS3's tables. Pure."""

from collections.abc import Mapping

from shardline_producer.sources.uds3.postgres.fields import alias, json_column
from shardline_producer.sources.uds3.postgres.schema import PostgresSchema
from shardline_producer.sources.uds3.tombstones import (
    ARCHIVED,
    ARCHIVED_AT,
    FLAG_PATTERN,
    FLAGS,
    NO_TIME_PATTERN,
    NO_VALUE_PATTERN,
    STATUS,
    TIME,
    TOMBSTONE_FIELDS,
    deleted_statuses,
    status_pattern,
)


def is_deleted(schema: PostgresSchema, *, include_archived: bool) -> tuple[str, set[int]]:
    """Whether a row of any table marks a document as deleted, in its columns or in `metadata_json`.

    Returns the condition, and the numbers of the tables that it reads.
    """
    found: list[str] = []
    tables: set[int] = set()
    for number, table in enumerate(schema.tables):
        columns = {column.name: f"{alias(number)}.{column.quoted}::text" for column in table.columns}
        marks = _marks(columns, include_archived=include_archived)
        if (whole := json_column(number, table)) is not None:
            keys = {name: f"({whole} ->> '{name}')" for name in TOMBSTONE_FIELDS}
            marks += _marks(keys, include_archived=include_archived)
        if marks:
            found += marks
            tables.add(number)
    return " OR ".join(found) or "FALSE", tables


def _marks(texts: Mapping[str, str], *, include_archived: bool) -> list[str]:
    """The conditions of `tombstones.is_deleted` over the texts of fields."""
    statuses = status_pattern(deleted_statuses(include_archived=include_archived))
    marks = [_matches(texts[name], FLAG_PATTERN) for name in FLAGS if name in texts]
    if TIME in texts:
        marks.append(_matches(texts[TIME], NO_TIME_PATTERN, "!~*"))
    if STATUS in texts:
        marks.append(_matches(texts[STATUS], statuses))
    if not include_archived and (ARCHIVED in texts or ARCHIVED_AT in texts):
        flag, time = texts.get(ARCHIVED, "NULL"), texts.get(ARCHIVED_AT, "NULL")
        marks.append(
            f"CASE WHEN {_matches(flag, NO_VALUE_PATTERN, '!~*')} THEN {_matches(flag, FLAG_PATTERN)}"
            f" ELSE {_matches(time, NO_TIME_PATTERN, '!~*')} END"
        )
    return marks


def _matches(text: str, pattern: str, operator: str = "~*") -> str:
    # A pattern needs a collation that is deterministic; by a Turkish one, I and i are two letters.
    return f"coalesce({text} COLLATE \"C\" {operator} '^({pattern})$', FALSE)"
