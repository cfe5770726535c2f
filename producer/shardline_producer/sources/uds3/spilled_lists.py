"""Lists of a search that are kept on disk. All of them compare text by its bytes, and all calls block."""

import weakref
from collections.abc import Iterable, Iterator

from shardline_producer.sources.uds3.scratch import ScratchDatabase

_PAGE = 1000


class LowestScores:
    """The lowest score of each document."""

    def __init__(self, database: ScratchDatabase) -> None:
        self._database = database
        database.execute("CREATE TABLE lowest (id TEXT PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID")

    def add(self, scores: Iterable[tuple[str, float]]) -> None:
        """Add (document id, score) pairs. A document keeps the lowest of its scores."""
        self._database.write(
            "INSERT INTO lowest VALUES (?, ?)"
            " ON CONFLICT (id) DO UPDATE SET score = min(score, excluded.score)",
            scores,
        )

    def ranked(self) -> Iterator[list[tuple[str, float]]]:
        """Pages of (document id, score), the lowest score first, ties by id."""
        return self._database.pages("SELECT id, score FROM lowest ORDER BY score, id", _PAGE)


class SortedIds:
    """A set of ids that is read in order."""

    def __init__(self, database: ScratchDatabase) -> None:
        self._database = database
        database.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def clear(self) -> None:
        """Remove all ids."""
        self._database.execute("DELETE FROM ids")

    def add(self, ids: Iterable[str]) -> None:
        """Add ids; those that are present are ignored."""
        self._database.write("INSERT OR IGNORE INTO ids VALUES (?)", ((identity,) for identity in ids))

    def count(self) -> int:
        """The number of ids."""
        return int(self._database.rows("SELECT count(*) FROM ids")[0][0])

    def after(self, last: str, limit: int) -> list[str]:
        """The next ids after `last`, at most `limit`."""
        query = "SELECT id FROM ids WHERE id > ? ORDER BY id LIMIT ?"
        return [found for (found,) in self._database.rows(query, (last, limit))]

    def present(self, ids: Iterable[str]) -> list[str]:
        """Those of `ids` that are in the set, in their order."""
        query = "SELECT 1 FROM ids WHERE id = ?"
        return [one for one in ids if self._database.rows(query, (one,))]

    def beginning(self, start: str) -> list[str]:
        """The ids that begin with a text, in order."""
        query = "SELECT id FROM ids WHERE id >= ? AND id < CAST(? AS TEXT) ORDER BY id"
        # No UTF-8 has a byte 0xFF: the bound is behind every id that begins with the text.
        return [found for (found,) in self._database.rows(query, (start, start.encode() + b"\xff"))]


class VisitedNodes:
    """The nodes that a breadth-first search of a graph has visited, with their distance in edges."""

    def __init__(self, database: ScratchDatabase) -> None:
        self._database = database
        database.execute(
            "CREATE TABLE visited (node TEXT PRIMARY KEY, id TEXT, hop INTEGER, is_hit INTEGER) WITHOUT ROWID"
        )

    def add(self, hop: int, nodes: Iterable[tuple[str, str, bool]]) -> None:
        """Add (node, document id, whether it is a hit) at a distance; nodes visited before are ignored."""
        self._database.write(
            "INSERT OR IGNORE INTO visited VALUES (?, ?, ?, ?)",
            ((node, document, hop, is_hit) for node, document, is_hit in nodes),
        )

    def at(self, hop: int, after: str, limit: int) -> list[str]:
        """The next nodes at a distance, in order after the node `after`, at most `limit`."""
        query = "SELECT node FROM visited WHERE hop = ? AND node > ? ORDER BY node LIMIT ?"
        return [node for (node,) in self._database.rows(query, (hop, after, limit))]

    def neighbours(self) -> Iterator[list[tuple[str, int]]]:
        """Pages of (document id, edges from the nearest direct hit), the nearest first, ties by id.

        Direct hits, at distance 0, are left out.
        """
        return self._database.pages(
            "SELECT id, min(hop) AS nearest FROM visited WHERE is_hit GROUP BY id HAVING nearest > 0"
            " ORDER BY nearest, id",
            _PAGE,
        )


class AliasIndex:
    """The names of documents in another store. A document has the first of its names in byte order.

    Without a database it has one of its own, which is closed when the index is garbage collected.
    """

    def __init__(self, database: ScratchDatabase | None = None) -> None:
        self._database = database or ScratchDatabase()
        if database is None:
            weakref.finalize(self, self._database.close)
        self._database.execute(
            "CREATE TABLE aliases (id TEXT, name TEXT, PRIMARY KEY (id, name)) WITHOUT ROWID"
        )

    def add(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Add (document id, name) pairs."""
        self._database.write("INSERT OR IGNORE INTO aliases VALUES (?, ?)", pairs)

    def find(self, ids: Iterable[str]) -> list[tuple[str, str]]:
        """The (name, document id) pairs of the documents that have a name, in the order of `ids`."""
        query = "SELECT name FROM aliases WHERE id = ? ORDER BY name LIMIT 1"
        return [(name, identity) for identity in ids for (name,) in self._database.rows(query, (identity,))]
