"""The dialect and the header of CSV and TSV, found in the first rows when the job is planned."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from shardline_common.job.spec import FilesSource
from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.files.csv_records import ESCAPE, BadQuotes, CsvSplitter, Dialect
from shardline_producer.sources.files.file_errors import source_invalid
from shardline_producer.sources.files.file_names import is_named_csv, is_named_text
from shardline_producer.sources.files.lines import BOM

_DELIMITERS = (",", ";", "\t", "|")
# More rows say no more about the dialect.
_SAMPLE_ROWS = 1000
_MIN_ROWS_BY_CONTENT = 3
_MAX_NAME = 100
# A text of this length may be the start of a longer one.
_MAY_BE_CUT = 1 << 16
# Of this share of the rows, other cells are damage and not another dialect.
_CONSISTENT = 0.5
# Quotes are believed while wrong ones are rare among the closed ones.
_QUOTES_PER_BAD = 4
_SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d+([.,:/-]\d+)*%?")
_DATE_START = re.compile(r"\d{4}-\d\d-\d\d|\d\d?[./]\d\d?[./]\d{2,4}")
_PLAIN_NAME = re.compile(r"[\w .()/#%$@:-]+")
_SAME_SHAPE = 0.8


@dataclass(frozen=True)
class _Sample:
    """The first rows under a dialect: the cells of each, None where its quotes are wrong."""

    dialect: Dialect
    rows: Sequence[list[str | None] | None]
    first_number: int
    quoted: int

    @property
    def columns(self) -> int:
        return len(self.rows[0] or ())

    @property
    def trust(self) -> int:
        """How far the quotes are believed: rows with quoted cells speak for them, wrong quotes against."""
        return self.quoted - _QUOTES_PER_BAD * sum(row is None for row in self.rows)

    @property
    def consistent(self) -> float:
        return sum(row is not None and len(row) == self.columns for row in self.rows) / len(self.rows)


def detect_csv(path: str, text: bytes, source: FilesSource) -> Dialect | None:
    """The dialect of a file whose text begins with `text`; None if it is no CSV, or has no rows.

    A name of CSV, or the job, says that it is CSV. Without them it is only what cannot be anything else.

    Raises:
        JobFailed: it is CSV, and its columns or their names cannot be found (`source_invalid`).
    """
    named = (
        source.format == "csv" or is_named_csv(path) or (source.csv is not None and not is_named_text(path))
    )
    shown = text.removeprefix(BOM).decode(errors="replace")
    if not shown.strip() or (is_named_text(path) and not named):
        return None
    if named and "\n" not in shown and "\r" in shown.strip():
        raise source_invalid(
            f"the lines of {shown_path(path)} end with a carriage return alone",
            f"change them: tr '\\r' '\\n' < {shown_path(path)} > changed.csv",
        )
    best = _best_sample(shown, source)
    if best is None or not (named or _is_surely_csv(best)):
        return None
    return replace(best.dialect, header=_header(path, best, source), skip=_skip(best, source))


def _best_sample(text: str, source: FilesSource) -> _Sample | None:
    first = text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    given = source.csv
    delimiters: Sequence[str] = _DELIMITERS
    above = 0
    if separator := _SEPARATOR_LINE.fullmatch(first):
        # Excel reads this line and does not show it.
        delimiters, above = separator[1], 1
    if given is not None and given.delimiter is not None:
        delimiters = (given.delimiter,)
    samples = [
        sample
        for delimiter in delimiters
        if (sample := _with_quotes(text, Dialect(delimiter, skip=above), source)) is not None
    ]
    found = [sample for sample in samples if sample.columns > 1]
    if found:
        return max(found, key=lambda sample: (sample.consistent, sample.columns))
    # One column: a delimiter that stands in texts is none.
    return max(samples, key=lambda sample: sample.consistent, default=None)


def _with_quotes(text: str, base: Dialect, source: FilesSource) -> _Sample | None:
    """The sample under the quotes that the rows have."""
    given = source.csv
    quotes = ('"', "'") if given is None or given.quote is None else (given.quote,)
    escapes = [False, True] if given is None or given.escape is None else [given.escape == "backslash"]
    samples = [
        sample
        for quote in quotes
        for escape in escapes
        if (quote in text or quote == quotes[0]) and (ESCAPE in text or escape == escapes[0])
        if (sample := _sample(text, replace(base, quote=quote, escape=escape))) is not None
        if sample.quoted or quote == quotes[0]
    ]
    # The first of those that are equal: double quotes, which are doubled within a cell.
    best = max(samples, key=lambda sample: (sample.trust, _is_escaped(text, sample)), default=None)
    if best is None or (best.trust < 0 and (given is None or given.quote is None)):
        return _sample(text, replace(base, quote="", escape=False))
    return best


def _is_escaped(text: str, sample: _Sample) -> bool:
    """Whether the backslashes before quotes are read as what they are."""
    quote = re.escape(sample.dialect.quote)
    within = rf"\\{quote}[^{quote}\r\n{re.escape(sample.dialect.delimiter)}]"
    return sample.dialect.escape == bool(quote and re.search(within, text))


def _sample(text: str, dialect: Dialect) -> _Sample | None:
    """The first rows. The last one is left out when it may be cut."""
    rows: list[list[str | None] | None] = []
    quoted, first_number = 0, 0
    for number, row in _rows(text, dialect):
        first_number = first_number or number
        try:
            cells = dialect.cells(row)
        except BadQuotes:
            rows.append(None)
            continue
        if dialect.quote and dialect.quote in row:
            quoted += any(part.startswith(dialect.quote) for part in row.split(dialect.delimiter))
        rows.append(cells)
        if len(rows) == _SAMPLE_ROWS:
            break
    if len(text) >= _MAY_BE_CUT and len(rows) > 1:
        rows.pop()
    return _Sample(dialect, rows, first_number, quoted) if rows and rows[0] is not None else None


def _rows(text: str, dialect: Dialect) -> Iterator[tuple[int, str]]:
    data = text.encode()
    # The number of columns is that of the first row: with it, an open quote is found.
    first = next(CsvSplitter(len(data), 0, 0, dialect).feed(data + b"\n"), None)
    columns = first.text.count(dialect.delimiter.encode()) + 1 if first else 0
    splitter = CsvSplitter(len(data), 0, 0, replace(dialect, header=[""] * columns))
    for row in chain(splitter.feed(data), splitter.finish()):
        yield row.number, row.text.decode()


def _is_surely_csv(sample: _Sample) -> bool:
    names = [name or "" for name in sample.rows[0] or ()]
    return (
        len(names) > 1
        and len(sample.rows) >= _MIN_ROWS_BY_CONTENT
        and sample.consistent == 1.0
        and len(set(names)) == len(names)
        and all(_PLAIN_NAME.fullmatch(name) for name in names)
        and _data_cell(sample) is None
    )


def _skip(sample: _Sample, source: FilesSource) -> int:
    given = source.csv.header if source.csv is not None else None
    is_header = given is None or list(given) == [cell or "" for cell in sample.rows[0] or ()]
    return sample.first_number - (not is_header)


def _header(path: str, sample: _Sample, source: FilesSource) -> list[str]:
    usual = Counter(len(row) for row in sample.rows if row is not None).most_common(1)[0][0]
    given = source.csv.header if source.csv is not None else None
    if given is not None:
        if len(given) != usual:
            raise source_invalid(
                f"source.csv.header has {len(given):,} names, and the rows of {shown_path(path)} have "
                f"{usual:,} cells, separated by {json.dumps(sample.dialect.delimiter)}",
                "name each column; source.csv.delimiter is what separates them",
            )
        return list(given)
    if sample.consistent < _CONSISTENT:
        raise source_invalid(
            f"the first row of {shown_path(path)} has {sample.columns:,} cells, separated by "
            f"{json.dumps(sample.dialect.delimiter)}, and most rows have {usual:,}",
            "remove what stands above the header, or set source.csv, such as "
            '{"delimiter": ";", "quote": "\\""}',
        )
    if (cell := _data_cell(sample)) is not None:
        names = ["document_id", "content", *(f"column_{number}" for number in range(3, usual + 1))][:usual]
        raise source_invalid(
            f"the first row of {shown_path(path)} looks like data and not like a header: "
            f"it has the cell {json.dumps(cell[:_MAX_NAME], ensure_ascii=False)}",
            f'name the columns in the job: "csv": {json.dumps({"header": names})}',
        )
    return _distinct([(name or "").strip() for name in sample.rows[0] or ()])


def _distinct(names: Sequence[str]) -> list[str]:
    """The names of the columns; one that is empty or there already gets a number."""
    given, last = set(names), dict[str, int]()
    found: dict[str, None] = {}
    for number, name in enumerate(names, start=1):
        plain = name or f"column_{number}"
        # Of thousands of equal names, each goes on where the one before it ended.
        unique, times = plain, last.get(plain, 1)
        while unique in found or (unique != name and unique in given):
            times += 1
            unique = f"{plain}_{times}"
        last[plain] = times
        found[unique] = None
    return list(found)


def _data_cell(sample: _Sample) -> str | None:
    """A cell of the first row that no header has, or that has the form of those below it."""
    first, *rows = [row for row in sample.rows if row is not None]
    for column, cell in enumerate(first):
        if cell is None:
            continue
        name = cell.strip()
        if len(name) > _MAX_NAME or "\n" in name or "://" in name:
            return name
        if _NUMBER.fullmatch(name) or _DATE_START.match(name):
            return name
        below = [row[column] for row in rows if len(row) == len(first) and row[column]]
        shape = _shape(name)
        same = sum(_shape(other or "") == shape for other in below)
        if any(char.isdigit() for char in name) and len(below) > 1 and same >= _SAME_SHAPE * len(below):
            return name
    return None if any(first) else ""


def _shape(text: str) -> str:
    return re.sub(r"\d+", "0", text)
