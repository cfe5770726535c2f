"""Rows without an id. They cannot be documents, and are in the plan as dead letters to be.

Such a row is known by its number among the rows without an id, because nothing else about it is the same in
every read. The entry of the plan begins with a zero character, which no id of PostgreSQL holds.
"""

import re

_ENTRY = re.compile(r"\0(.+:null:(\d+))", re.DOTALL)


def keyless_id(table: str, number: int) -> str:
    """The entry of row `number` without an id, counted from 1."""
    return f"\0{table}:null:{number}"


def keyless_number(identity: str | None) -> int:
    """The number in an entry of `keyless_id`; 0 for any other id."""
    found = _ENTRY.fullmatch(identity or "")
    return int(found[2]) if found else 0


def keyless_key(identity: str) -> str | None:
    """The key of the dead letter of such an entry, such as `documents:null:1`; None for any other id."""
    found = _ENTRY.fullmatch(identity)
    return found[1] if found else None


def is_storable(identity: str) -> bool:
    """Whether PostgreSQL can hold this text. Ids of other stores may have zeros or halves of surrogates."""
    try:
        return b"\0" not in identity.encode()
    except UnicodeEncodeError:
        return False
