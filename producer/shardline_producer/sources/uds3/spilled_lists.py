"""Long lists on disk: a search may find more documents than memory should hold.

SQLite in a temporary file, without journal: it is gone with the process.
"""

import sqlite3
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

_PAGE = 1000


class BestOf:
    """The best score of each document: the lowest number wins. Text is compared by its bytes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("CREATE TABLE best (id TEXT PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID")

    def offer(self, found: Iterable[tuple[str, float]]) -> None:
        """Keep the scores that are lower than what their documents have."""
        self._connection.executemany(
            "INSERT INTO best VALUES (?, ?)"
            " ON CONFLICT (id) DO UPDATE SET score = min(score, excluded.score)",
            found,
        )

    def ranked(self) -> Iterator[list[tuple[str, float]]]:
        """Pages of documents, the lowest score first, ties by id."""
        cursor = self._connection.execute("SELECT id, score FROM best ORDER BY score, id")
        while page := cursor.fetchmany(_PAGE):
            yield page


class Listed:
    """Names, each once, in byte order."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("CREATE TABLE listed (name TEXT PRIMARY KEY) WITHOUT ROWID")

    def clear(self) -> None:
        """Forget all."""
        self._connection.execute("DELETE FROM listed")

    def add(self, names: Iterable[str]) -> None:
        """Add names; those that are there already stay."""
        self._connection.executemany("INSERT OR IGNORE INTO listed VALUES (?)", ((name,) for name in names))

    def count(self) -> int:
        """How many there are."""
        return int(self._connection.execute("SELECT count(*) FROM listed").fetchone()[0])

    def after(self, name: str, most: int) -> list[str]:
        """The next names behind one."""
        rows = self._connection.execute(
            "SELECT name FROM listed WHERE name > ? ORDER BY name LIMIT ?", (name, most)
        )
        return [found for (found,) in rows]


class Reached:
    """The nodes that a search of a graph came to, and after how many edges."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute(
            "CREATE TABLE reached (node TEXT PRIMARY KEY, id TEXT, hop INTEGER, fits INTEGER) WITHOUT ROWID"
        )

    def add(self, hop: int, nodes: Iterable[tuple[str, str, bool]]) -> Self:
        """Add nodes as (node, document id, whether it is a hit); those that were reached before stay."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO reached VALUES (?, ?, ?, ?)",
            ((node, document, hop, fits) for node, document, fits in nodes),
        )
        return self

    def at(self, hop: int, after: str, most: int) -> list[str]:
        """The next nodes at a distance, in order, behind one."""
        rows = self._connection.execute(
            "SELECT node FROM reached WHERE hop = ? AND node > ? ORDER BY node LIMIT ?", (hop, after, most)
        )
        return [node for (node,) in rows]

    def neighbours(self) -> Iterator[list[tuple[str, int]]]:
        """Pages of (document id, edges from the nearest direct hit), the nearest first, ties by id."""
        cursor = self._connection.execute(
            "SELECT id, min(hop) AS nearest FROM reached WHERE fits GROUP BY id HAVING nearest > 0"
            " ORDER BY nearest, id"
        )
        while page := cursor.fetchmany(_PAGE):
            yield page


class Names:
    """Which name a document goes by elsewhere: the first in byte order where there are several.

    It has a database of its own, which is closed when it is let go of.
    """

    def __init__(self) -> None:
        self._connection = _temporary()
        weakref.finalize(self, self._connection.close)
        self._connection.execute("CREATE TABLE names (id TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID")

    def add(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Add (document id, name) pairs."""
        self._connection.executemany(
            "INSERT INTO names VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET name = min(name, excluded.name)",
            pairs,
        )

    def of(self, identities: Iterable[str]) -> list[tuple[str, str]]:
        """(name, document id) of those that have one."""
        found = []
        for identity in identities:
            for (name,) in self._connection.execute("SELECT name FROM names WHERE id = ?", (identity,)):
                found.append((name, identity))
        return found


@contextmanager
def scratch() -> Iterator[sqlite3.Connection]:
    """A database of one's own, used by one thread at a time."""
    connection = _temporary()
    try:
        yield connection
    finally:
        connection.close()


def _temporary() -> sqlite3.Connection:
    # "" is SQLite's name for a file of its own, which it removes.
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;")
    return connection
