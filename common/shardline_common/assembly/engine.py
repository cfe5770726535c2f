"""DuckDB: runs the SQL files of this package over Parquet, out of core, in a bounded amount of memory."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from threading import Event, Thread
from typing import Any

from shardline_common.assembly.extra import assembly_extra
from shardline_common.errors import FailureCode, JobFailed, ShardlineError, SpoolError

_BATCH_ROWS = 65_536
_SMALLEST_LIMIT = 64 << 20
_INTERRUPT_SECONDS = 0.01


class DecisionInterrupted(ShardlineError):
    """The decision was interrupted. A new decider goes on with the step that was not finished."""


class Engine:
    """A database of its own in `folder`, for one thread; `interrupt` may be called from any other.

    Args:
        folder: where the database and what does not fit into memory are; removed by `close`.
        memory_bytes: how much memory DuckDB may take, 64 MiB at least.
        threads: how many threads it may use.

    Raises:
        UsageError: DuckDB is not installed.
    """

    def __init__(self, folder: Path, memory_bytes: int, threads: int) -> None:
        with assembly_extra():
            import duckdb
        self.memory_bytes = max(memory_bytes, _SMALLEST_LIMIT)
        self._duckdb = duckdb
        self._folder = folder
        self._interrupted, self._idle = Event(), Event()
        self._idle.set()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # The order of rows between statements decides nothing, and to keep it costs memory. Names of tables
        # are not those of Python's variables. Extensions would be loaded from the network; a decision needs
        # none.
        options: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{self.memory_bytes}B",
            "threads": threads,
            "temp_directory": str(folder / "spill"),
            "preserve_insertion_order": False,
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._connection = duckdb.connect(":memory:", config=options)
        # `progress` needs it. It would be printed to stdout.
        self._connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")

    def interrupt(self) -> None:
        """Stop the running statement, and refuse every later one."""
        self._interrupted.set()
        Thread(target=self._interrupt_until_idle, name="interrupt", daemon=True).start()

    def check(self) -> None:
        """Raise DecisionInterrupted after `interrupt`."""
        if self._interrupted.is_set():
            raise DecisionInterrupted("the decision was interrupted")

    def progress(self) -> float:
        """The share of the running statement that is done, 0 to 1, by DuckDB's estimate; 0 where it has none.

        May be called from any thread.
        """
        if self._idle.is_set():
            return 0.0
        with suppress(self._duckdb.Error):  # it was closed in the meantime
            return min(1.0, max(0.0, self._connection.query_progress() / 100))
        return 0.0

    def close(self) -> None:
        """Close the database, and remove its files."""
        self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def set(self, **variables: int | list[str]) -> None:
        """Set variables that SQL files read by `getvariable`. Integers are unsigned ones of 64 bits."""
        for name, value in variables.items():
            cast = "" if isinstance(value, list) else "::UBIGINT"
            self._execute(f"SET VARIABLE {name} = $value{cast}", {"value": value})

    def define(self, view: str, query: str) -> None:
        """Define a view."""
        self._execute(f"CREATE OR REPLACE VIEW {view} AS {query}")

    def macro(self, name: str, parameters: str, expression: str) -> None:
        """Define a macro for SQL files, of an expression that is made of numbers and names of columns."""
        self._execute(f"CREATE OR REPLACE MACRO {name}({parameters}) AS {expression}")

    def clear(self, table: str) -> None:
        """Remove all rows of a table."""
        self._execute(f"DELETE FROM {table}")

    def drop(self, table: str) -> None:
        """Remove a table."""
        self._execute(f"DROP TABLE {table}")

    def run(self, name: str) -> None:
        """Run the statements of `sql/<name>.sql`."""
        self._execute(_text(name))

    def value(self, query: str) -> Any:
        """The only value of the only row of a short query."""
        return self.rows(query)[0][0]

    def rows(self, name_or_query: str) -> list[tuple[Any, ...]]:
        """All rows of a small result, of a query or of `sql/<name>.sql`."""
        text = name_or_query if " " in name_or_query else _text(name_or_query)
        with self._running():
            return self._connection.sql(text).fetchall()

    def stream(self, name: str, batch_rows: int = _BATCH_ROWS) -> Iterator[Any]:
        """The result of `sql/<name>.sql` as Arrow batches. Run no other statement before its end."""
        with self._running():
            for batch in self._connection.sql(_text(name)).to_arrow_reader(batch_rows):
                self.check()
                yield batch

    def _execute(self, text: str, parameters: Mapping[str, object] | list[object] | None = None) -> None:
        with self._running():
            self._connection.execute(text, parameters)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Around a statement: makes it possible to interrupt it, and translates its errors."""
        self._idle.clear()
        try:
            self.check()
            yield
        # Behind the first batch of a stream, the errors of DuckDB come as an OSError of Arrow.
        except (self._duckdb.Error, OSError) as error:
            self.check()
            if str(error).startswith("Out of Memory Error"):
                raise JobFailed(
                    FailureCode.SPOOL,
                    f"the decision does not fit: {_first_line(error)}",
                    hint="give it more memory, or more space for its temporary files, then retry the job",
                ) from error
            if isinstance(error, (self._duckdb.IOException, OSError)):
                raise SpoolError(
                    f"the files of the decision cannot be read or written: {_first_line(error)}",
                    hint="free space on the disk of the spool folder",
                ) from error
            raise
        finally:
            self._idle.set()

    def _interrupt_until_idle(self) -> None:
        # DuckDB forgets an interrupt that comes before the statement begins.
        while not self._idle.wait(_INTERRUPT_SECONDS):
            with suppress(self._duckdb.Error):  # it was closed in the meantime
                self._connection.interrupt()


def _text(name: str) -> str:
    return files(__package__).joinpath("sql", f"{name}.sql").read_text("utf-8")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
