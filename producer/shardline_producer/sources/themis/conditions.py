"""What a job wants of a table: what the server may filter by, and the same checked again here. Pure.

The server drops its filter without a word where no row matches. And what /query gives is lossy: objects
and most arrays are missing, and doubles are cut to 6 digits; so a check may be unsure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardline_common.job.spec import Query, Range, ThemisSource
from shardline_producer.sources.query_filters import passes
from shardline_producer.sources.source import Document

CREATED = "created_at"
_OWN = ("document_id", "content", "score")
_CUT = 1e-5
_DIGITS = 999_999


@dataclass(frozen=True, slots=True)
class Conditions:
    """`equal`: column → value that the source's own fields ask for; `since`, `until`: of created_at."""

    equal: Mapping[str, str]
    since: str | None
    until: str | None
    filters: Mapping[str, Any]

    @classmethod
    def of(cls, source: ThemisSource, query: Query) -> "Conditions":
        """Those of a job. `theme` is the column category, the other two have their own."""
        equal = {"category": source.theme, "domain": source.domain, "subject": source.subject}
        wanted = {name: value for name, value in equal.items() if value is not None}
        filters = {
            ("document_id" if name == source.key else name): one for name, one in query.filters.items()
        }
        return cls(wanted, source.from_date, source.to_date, filters)

    @property
    def empty(self) -> bool:
        """Whether every row is wanted."""
        return not (self.equal or self.since or self.until or self.filters)

    @property
    def optional(self) -> dict[str, str]:
        """Filters by which the server may choose, where it has an index: equality of text."""
        return {
            name: value
            for name, value in self.filters.items()
            if isinstance(value, str) and value and name not in (*_OWN, *self.equal)
        }

    def meets(self, document: Document) -> bool:
        """Whether a whole document is wanted."""
        columns = document.metadata
        return (
            all(columns.get(name) == value for name, value in self.equal.items())
            and self._in_time(columns.get(CREATED))
            and passes(document, self.filters)
        )

    def _in_time(self, value: object) -> bool:
        if self.since is None and self.until is None:
            return True
        if not isinstance(value, str):
            return False
        # A day as the upper bound is meant with all its hours.
        return value >= (self.since or "") and (self.until is None or value[: len(self.until)] <= self.until)

    def meets_lossy(self, document: Document) -> bool | None:
        """Whether a row as /query gives it is wanted; None when only the whole one can tell."""
        if any(_unsure(document.metadata.get(name), wanted) for name, wanted in self.filters.items()):
            return None
        return self.meets(document)


def _unsure(value: object, wanted: object) -> bool:
    operands = [wanted.gte, wanted.lte] if isinstance(wanted, Range) else wanted
    if not isinstance(operands, list):
        operands = [operands]
    if value is None:
        # What is missing here may be a list or an object there.
        return not isinstance(wanted, Range) and None in operands
    return any(_near(value, one) for one in operands)


def _near(value: object, operand: object) -> bool:
    if isinstance(value, bool) or isinstance(operand, bool):
        return False
    if not isinstance(value, int | float) or not isinstance(operand, int | float):
        return False
    if isinstance(value, int) and (abs(value) > _DIGITS or value == operand):
        # Whole numbers come whole.
        return False
    return abs(value - operand) <= _CUT * max(abs(value), abs(operand))


def kept_by_server(fields: Mapping[str, Any], predicates: Mapping[str, str]) -> bool:
    """Whether a row matches as the server compares: everything as text."""
    return all(_as_text(fields.get(name)) == value for name, value in predicates.items())


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:f}"
    return str(value) if isinstance(value, int | str) else None
