"""Reciprocal rank fusion: exact, to the end, in bounded memory."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import fsum
from threading import Lock

from shardline_common.errors import SourceUnavailable
from shardline_producer.sources.planned import Entry

CONSTANT = 60
_PAGE = 5_000
# Negative: KiB. What does not fit goes to a file that SQLite removes by itself.
_CACHE_KIB = -16_384


def fused_score(weights: Sequence[float], ranks: Sequence[int | None]) -> float:
    """The sum of weight / (60 + rank) over the lists that have the document; ranks count from 1.

    It is rounded once, at the end: so it does not hang on the order of the lists, and ties are ties.
    """
    pairs = zip(weights, ranks, strict=True)
    return fsum(weight / (CONSTANT + rank) for weight, rank in pairs if rank is not None)


@dataclass(frozen=True, slots=True)
class Found:
    """A document of a list that counts. `foreign` as in Entry."""

    id: str
    foreign: bool


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SourceUnavailable(
            f"the lists of a search cannot be fused on disk: {error}",
            hint="make room in the temporary folder, or name another by TMPDIR",
        ) from error


class Fusion:
    """Takes lists of documents, the best first, and gives the fused one. Blocking: call it off the loop.

    Lists and what does not count may be given in any order, from several threads at once: ranks are made
    at the end.
    All methods raise SourceUnavailable where the temporary folder is full or cannot be written.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = tuple(weights)
        self._given = [0] * len(self._weights)
        self._counts: list[int | None] = [0] * len(self._weights)
        self._lock = Lock()
        # "" is a database on disk, private and temporary; used by one thread at a time.
        self._base = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._base.execute(f"PRAGMA cache_size = {_CACHE_KIB}")
        ranks = ", ".join(f"r{number} INTEGER" for number in range(len(self._weights)))
        self._base.execute(
            f"CREATE TABLE found (id TEXT PRIMARY KEY, away INTEGER NOT NULL, {ranks}) WITHOUT ROWID"
        )
        self._base.execute("CREATE TABLE gone (id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._base.create_function("fused", len(self._weights), self._score, deterministic=True)

    def _score(self, *ranks: int | None) -> float:
        return fused_score(self._weights, ranks)

    def count(self, number: int) -> int:
        """How many documents of the list of that number count, as far as it was given."""
        with self._lock, _on_disk():
            if (known := self._counts[number]) is None:
                known = self._base.execute(
                    f"SELECT count(*) FROM found WHERE r{number} IS NOT NULL AND id NOT IN gone"  # noqa: S608 - a column of ours
                ).fetchone()[0]
                self._counts[number] = known
            return known

    def exclude(self, ids: Sequence[str]) -> int:
        """Let documents not count, in whatever list; how many of these did until now."""
        with self._lock, _on_disk():
            self._counts = [None] * len(self._counts)
            self._base.execute("BEGIN")
            rows = ((one,) for one in ids)
            done = self._base.executemany("INSERT OR IGNORE INTO gone VALUES (?)", rows)
            self._base.execute("COMMIT")
        return done.rowcount

    def add(self, number: int, page: Sequence[Found]) -> None:
        """Take the next documents of a list."""
        column = f"r{number}"
        with self._lock, _on_disk():
            rows = [(found.id, found.foreign, place) for place, found in enumerate(page, self._given[number])]
            self._given[number] += len(page)
            if (known := self._counts[number]) is not None:
                self._counts[number] = known + sum(not self._is_excluded(found.id) for found in page)
            self._base.execute("BEGIN")
            self._base.executemany(
                f"INSERT INTO found (id, away, {column}) VALUES (?, ?, ?)"  # noqa: S608 - a column of ours
                f" ON CONFLICT (id) DO UPDATE SET {column} = coalesce({column}, excluded.{column}),"
                " away = min(away, excluded.away)",
                rows,
            )
            self._base.execute("COMMIT")

    def _is_excluded(self, identity: str) -> bool:
        return self._base.execute("SELECT 1 FROM gone WHERE id = ?", (identity,)).fetchone() is not None

    def pages(self, limit: int | None) -> Iterator[list[Entry]]:
        """The fused list, ties by id in byte order. What does not count has no rank either."""
        numbers = range(len(self._weights))
        names = ", ".join(f"k{number}" for number in numbers)
        ranks = ", ".join(
            f"CASE WHEN r{number} IS NOT NULL"
            f" THEN row_number() OVER (ORDER BY r{number} IS NULL, r{number}) END AS k{number}"
            for number in numbers
        )
        query = (
            f"SELECT id, fused({names}) AS score, away"  # noqa: S608 - columns of ours
            f" FROM (SELECT id, away, {ranks} FROM found WHERE id NOT IN gone)"
            " ORDER BY score DESC, id LIMIT ?"
        )
        with _on_disk():
            cursor = self._base.execute(query, (-1 if limit is None else limit,))
            while rows := cursor.fetchmany(_PAGE):
                yield [Entry(identity, score, bool(away)) for identity, score, away in rows]

    def close(self) -> None:
        """Forget everything."""
        self._base.close()
