"""Temporary SQLite databases, for the lists of a search, which may be larger than memory."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from shardline_common.errors import SourceUnavailable

_CACHE_KIB = 2_000


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SourceUnavailable(
            f"a list of the search cannot be kept on disk: {error}",
            hint="free space in the temporary folder, or set TMPDIR to another folder",
        ) from error


class ScratchDatabase:
    """A private database in a temporary file, which is removed when it is closed or the process ends.

    All calls block. Any thread may call, but only one at a time. There is no journal: after an error the
    contents are undefined, and the database can only be closed. All methods raise SourceUnavailable when the
    temporary folder is full or cannot be written.

    Args:
        cache_kib: memory for pages, in KiB; further pages are written to the file.
    """

    def __init__(self, cache_kib: int = _CACHE_KIB) -> None:
        with _translated():
            # "" names a temporary database, whose file SQLite removes.
            self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            # The transaction is never committed: no other connection reads the file, and a commit per
            # statement would cost more than the statement.
            self._connection.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                f" PRAGMA cache_size = -{cache_kib}; BEGIN;"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, statement: str) -> None:
        """Run one statement without values."""
        with _translated():
            self._connection.execute(statement)

    def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement for each row of values. Returns how many rows it changed."""
        with _translated():
            return self._connection.executemany(statement, rows).rowcount

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a small result."""
        with _translated():
            return self._connection.execute(query, values).fetchall()

    def pages(self, query: str, size: int, values: Sequence[Any] = ()) -> Iterator[list[Any]]:
        """The rows of a result, in pages of `size` rows."""
        with _translated():
            cursor = self._connection.execute(query, values)
            while page := cursor.fetchmany(size):
                yield page

    def add_function(self, name: str, arguments: int, function: Callable[..., Any]) -> None:
        """Let statements call a pure function by this name."""
        with _translated():
            self._connection.create_function(name, arguments, function, deterministic=True)

    def close(self) -> None:
        """Close the database, which deletes its contents."""
        self._connection.close()
