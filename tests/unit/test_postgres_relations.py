"""What stands behind the tables of a job: which change ends it, and how certain a list is."""

import pytest

from shardline_common.job.findings import Level
from shardline_producer.sources.uds3.postgres.keyless import (
    is_storable,
    keyless_id,
    keyless_key,
    keyless_number,
)
from shardline_producer.sources.uds3.postgres.keys import KeyKind, key_kind
from shardline_producer.sources.uds3.postgres.relations import (
    Relation,
    TableState,
    certainty,
    table_change,
)

TABLE = Relation(1, "public.documents", "r", 100)


@pytest.mark.parametrize(
    ("relation", "standby", "level", "how"),
    [
        (TABLE, False, Level.PROVEN, "one snapshot"),
        (TABLE, True, Level.COUNTED, "standby"),
        (Relation(1, "mine", "m", 100), True, Level.COUNTED, "last REFRESH"),
        (Relation(1, "mine", "f", 0), False, Level.UNPROVEN, "foreign table"),
        (Relation(1, "mine", "v", 0, calls=True), False, Level.UNPROVEN, "reads rows of a function"),
        (Relation(1, "mine", "r", 100, syncing=True), True, Level.UNPROVEN, "has not ended"),
    ],
)
def test_a_list_is_as_certain_as_its_weakest_relation(
    relation: Relation, standby: bool, level: Level, how: str
) -> None:
    found = certainty([TABLE, relation], standby=standby)
    assert found.level is level
    assert how in found.how


@pytest.mark.parametrize(
    ("found", "change"),
    [
        ({"t": TableState(1, {"a": "text", "b": "int4", "c": "text"})}, None),
        ({}, "table t was dropped or renamed"),
        ({"t": TableState(2, {"a": "text", "b": "int4"})}, "made again"),
        ({"t": TableState(1, {"a": "text"})}, "column b of table t was dropped"),
        ({"t": TableState(1, {"a": "bytea", "b": "int4"})}, "given another type"),
        ({"t": TableState(1, {"a": "text", "b": "int4", "deleted": "bool"})}, "new column deleted"),
        (
            {"t": TableState(1, {"a": "text", "b": "int4"}), "u": TableState(9, {"deleted": "bool"})},
            "table u has a new column deleted",
        ),
    ],
)
def test_a_change_of_the_tables_is_named(found: dict[str, TableState], change: str | None) -> None:
    planned = {"t": TableState(1, {"a": "text", "b": "int4"})}
    named = table_change(planned, found, ("deleted",))
    assert named is None if change is None else change in (named or "")


def test_entries_of_rows_without_an_id_are_no_ids() -> None:
    entry = keyless_id("my:table", 12)
    assert (keyless_number(entry), keyless_key(entry), is_storable(entry)) == (12, "my:table:null:12", False)
    for identity in ("my:table:null:12", "\0", "\0a:null:", "\ud800"):
        assert (keyless_number(identity), keyless_key(identity)) == (0, None)
    assert is_storable("ä:null:1")
    assert not is_storable("\ud800")


def test_types_whose_text_is_not_the_only_one_of_a_value_are_no_ids() -> None:
    assert key_kind("uuid", "U") is KeyKind.UUID
    assert key_kind("colour", "E") is KeyKind.OTHER
    for type_name, category in (
        ("float8", "N"),
        ("money", "N"),
        ("bytea", "U"),
        ("date", "D"),
        ("bool", "B"),
    ):
        assert key_kind(type_name, category) is None
