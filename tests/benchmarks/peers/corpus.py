"""The documents of the comparison, and what their rows are: a hash of the multiset."""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import orjson

from tests.benchmarks.common import WORDS
from tests.benchmarks.peers.task import row

# Of ten documents, one is short and has no title: its score is too low.
_REJECTED = 10


class Rows(NamedTuple):
    """How many rows there are, and the sum of their hashes: equal for equal rows in any order."""

    number: int
    hashes: int


def write_documents(path: Path, count: int) -> Rows:
    """Write documents of 2 KB, one of ten of which is rejected. Returns the rows of the others."""
    rows = []
    with path.open("wb") as out:
        for number in range(count):
            short = number % _REJECTED == _REJECTED - 1
            document = {
                "document_id": f"d/{number}",
                "title": None if short else f"Satzung {number}",
                "domain": "baurecht",
                "document_type": None if short else "satzung",
                "content": f"{number}: " + WORDS * (1 if short else 20),
            }
            out.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
            if (made := row(document)) is not None:
                rows.append(_hash(made))
    return Rows(len(rows), sum(rows) % (1 << 128))


def hash_of_rows(lines: Iterable[bytes]) -> Rows:
    """The rows of JSON lines, whatever the order of their keys and their escapes."""
    hashes = [_hash(orjson.loads(line)) for line in lines]
    return Rows(len(hashes), sum(hashes) % (1 << 128))


def _hash(found: dict[str, object]) -> int:
    # Quix Streams puts each row into an envelope.
    found = found.get("_value", found)  # type: ignore[assignment]
    content = orjson.dumps(found, option=orjson.OPT_SORT_KEYS)
    return int.from_bytes(blake2b(content, digest_size=16).digest())
