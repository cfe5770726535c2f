"""Ids that stores mark deleted: looked up many at a time."""

from shardline_producer.sources.uds3.marked_ids import MarkedIds
from shardline_producer.sources.uds3.store_ports import STORE_ORDER


def test_marks_are_found_among_any_number_of_ids() -> None:
    marked, ids = MarkedIds(), [f"d{number}" for number in range(1201)]
    assert marked.stores_of(ids) == {}
    marked.add("couchdb", ids[::400])
    marked.add("neo4j", [ids[0], "\0", "ä"])
    couchdb = dict.fromkeys(ids[::400], "couchdb")
    assert marked.stores_of(ids) == couchdb | {"d0": min(("couchdb", "neo4j"), key=STORE_ORDER.index)}
    assert marked.stores_of(["\0", "ä", "none"]) == {"\0": "neo4j", "ä": "neo4j"}
