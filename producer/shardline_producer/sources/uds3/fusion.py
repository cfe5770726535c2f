"""Reciprocal rank fusion of several ranked lists: exact, to the end of the lists, in bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from threading import Lock

from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.uds3.scratch import ScratchDatabase

RANK_CONSTANT = 60
_PAGE = 5_000
_CACHE_KIB = 16_384


def fused_score(weights: Sequence[float], ranks: Sequence[int | None]) -> float:
    """The sum of weight / (60 + rank) over the lists that have the document. Ranks count from 1.

    The sum is rounded once, at the end: it does not depend on the order of the lists, and equal sums
    compare equal.
    """
    pairs = zip(weights, ranks, strict=True)
    return fsum(weight / (RANK_CONSTANT + rank) for weight, rank in pairs if rank is not None)


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document of a ranked list. `foreign` as in Entry."""

    id: str
    foreign: bool


class Fusion:
    """Takes ranked lists, the best document first, and returns the fused list. All calls block.

    Lists and exclusions may be added in any order and from several threads at once: ranks are computed when
    the fused list is read. All methods raise SourceUnavailable when the temporary folder is full or cannot
    be written.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = tuple(weights)
        self._added = [0] * len(self._weights)
        self._counts: list[int | None] = [0] * len(self._weights)
        self._excludes = False
        self._lock = Lock()
        self._database = ScratchDatabase(_CACHE_KIB)
        columns = ", ".join(f"place{number} INTEGER" for number in range(len(self._weights)))
        self._database.execute(
            f"CREATE TABLE ranked (id TEXT PRIMARY KEY, is_foreign INTEGER NOT NULL, {columns}) WITHOUT ROWID"
        )
        self._database.execute(
            "CREATE TABLE excluded_ids (id TEXT PRIMARY KEY, place INTEGER, is_hit INTEGER) WITHOUT ROWID"
        )
        self._database.add_function("fused", len(self._weights), self._score)

    def _score(self, *ranks: int | None) -> float:
        return fused_score(self._weights, ranks)

    def count(self, number: int) -> int:
        """The number of documents of list `number` so far, without excluded ones."""
        with self._lock:
            if (known := self._counts[number]) is None:
                known = self._database.rows(
                    f"SELECT count(*) FROM ranked WHERE place{number} IS NOT NULL"  # noqa: S608 - a fixed name
                    " AND id NOT IN (SELECT id FROM excluded_ids)"
                )[0][0]
                self._counts[number] = known
            return known

    def exclude(self, ids: Sequence[str], place: int = 0, *, are_hits: bool = False) -> int:
        """Exclude documents from all lists. Returns how many of them were not excluded before.

        Args:
            ids: the documents; repeats are ignored.
            place: the place of the store that excludes them, in the order of stores.
            are_hits: they would be in a list, if they were not excluded.
        """
        with self._lock:
            self._counts = [None] * len(self._counts)
            self._excludes = self._excludes or bool(ids)
            rows = [(place, are_hits, identity) for identity in ids]
            new = self._database.write(
                "INSERT OR IGNORE INTO excluded_ids (place, is_hit, id) VALUES (?, ?, ?)", rows
            )
            self._database.write(
                "UPDATE excluded_ids SET place = min(place, ?), is_hit = max(is_hit, ?) WHERE id = ?", rows
            )
            return new

    def left_out(self) -> dict[int, int]:
        """The number of excluded documents that would be in a list, by the first place that excluded them."""
        with self._lock:
            return dict(
                self._database.rows(
                    "SELECT place, count(*) FROM excluded_ids"
                    " WHERE is_hit OR id IN (SELECT id FROM ranked) GROUP BY place"
                )
            )

    def add(self, number: int, page: Sequence[RankedDocument]) -> None:
        """Append documents to list `number`. A document that is added twice keeps its better rank."""
        column = f"place{number}"
        with self._lock:
            rows = [(item.id, item.foreign, place) for place, item in enumerate(page, self._added[number])]
            self._added[number] += len(page)
            if (known := self._counts[number]) is not None:
                self._counts[number] = known + len(page) - self._excluded(page)
            self._database.write(
                f"INSERT INTO ranked (id, is_foreign, {column}) VALUES (?, ?, ?)"  # noqa: S608 - a fixed name
                f" ON CONFLICT (id) DO UPDATE SET {column} = coalesce({column}, excluded.{column}),"
                " is_foreign = min(is_foreign, excluded.is_foreign)",
                rows,
            )

    def _excluded(self, page: Sequence[RankedDocument]) -> int:
        """How many documents of a page are excluded."""
        if not self._excludes:
            return 0
        query = "SELECT 1 FROM excluded_ids WHERE id = ?"
        return sum(bool(self._database.rows(query, (item.id,))) for item in page)

    def pages(self, limit: int | None) -> Iterator[list[Entry]]:
        """The fused list, the highest score first, ties by id in byte order, up to `limit` entries.

        Excluded documents take no rank in any list.
        """
        numbers = range(len(self._weights))
        names = ", ".join(f"rank{number}" for number in numbers)
        ranks = ", ".join(
            f"CASE WHEN place{number} IS NOT NULL"
            f" THEN row_number() OVER (ORDER BY place{number} IS NULL, place{number}) END AS rank{number}"
            for number in numbers
        )
        query = (
            f"SELECT id, fused({names}) AS score, is_foreign"  # noqa: S608 - fixed names
            f" FROM (SELECT id, is_foreign, {ranks} FROM ranked"
            " WHERE id NOT IN (SELECT id FROM excluded_ids))"
            " ORDER BY score DESC, id LIMIT ?"
        )
        for rows in self._database.pages(query, _PAGE, (-1 if limit is None else limit,)):
            yield [Entry(identity, score, bool(foreign)) for identity, score, foreign in rows]

    def close(self) -> None:
        """Delete the lists."""
        self._database.close()
