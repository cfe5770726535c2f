"""The conditions of a job on the rows of a table: those the server may apply, and the check of a row. Pure.

Every row is checked, because the server drops its filter without notice when no row matches. Rows of /query
have losses: objects and most arrays are missing, and doubles are cut to 6 digits. So the check of such a
row may be undecided.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardline_common.job.spec import Query, Range, ThemisSource
from shardline_producer.sources.query_filters import OWN_FIELDS, in_range, is_moment, passes
from shardline_producer.sources.source import Document

_CREATED = "created_at"
_RELATIVE_LOSS = 1e-5
_MAX_EXACT = 999_999


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a job on a row.

    `equal` (column → value) comes from `theme`, `domain` and `subject` of the job's source; `since` and
    `until` are bounds of the column created_at; `filters` are those of the query.
    """

    equal: Mapping[str, str]
    since: str | None
    until: str | None
    filters: Mapping[str, Any]

    @classmethod
    def of(cls, source: ThemisSource, query: Query) -> "Conditions":
        """The conditions of a job. `theme` is the column category."""
        equal = {"category": source.theme, "domain": source.domain, "subject": source.subject}
        wanted = {name: value for name, value in equal.items() if value is not None}
        filters = {
            ("document_id" if name == source.key else name): one for name, one in query.filters.items()
        }
        return cls(wanted, source.from_date, source.to_date, filters)

    @property
    def empty(self) -> bool:
        """Whether every row meets them."""
        return not (self.equal or self.since or self.until or self.filters)

    @property
    def optional(self) -> dict[str, str]:
        """The filters that the server may apply if it has an index: equality of text."""
        return {
            name: value
            for name, value in self.filters.items()
            if isinstance(value, str) and value and name not in (*OWN_FIELDS, *self.equal)
        }

    def meets(self, document: Document) -> bool:
        """Whether a row without losses meets the conditions."""
        columns = document.metadata
        return (
            all(columns.get(name) == value for name, value in self.equal.items())
            and self._in_date_range(columns.get(_CREATED))
            and passes(document, self.filters)
        )

    def _in_date_range(self, value: object) -> bool:
        if self.since is None and self.until is None:
            return True
        if not isinstance(value, str):
            return False
        since, until = self.since or "", self.until or value
        # A day as the upper bound includes all its hours, a month all its days.
        included = value if is_moment(until) else value[: len(until)]
        return in_range(value, since, upper=False) and in_range(included, until, upper=True)

    def meets_lossy(self, document: Document) -> bool | None:
        """Whether a row from /query meets the conditions; None when only the stored row can decide."""
        if any(_undecided(document.metadata.get(name), wanted) for name, wanted in self.filters.items()):
            return None
        return self.meets(document)


def _undecided(value: object, wanted: object) -> bool:
    operands = [wanted.gte, wanted.lte] if isinstance(wanted, Range) else wanted
    if not isinstance(operands, list):
        operands = [operands]
    if value is None:
        # The stored row may have a list or an object that the response lacks.
        return not isinstance(wanted, Range) and None in operands
    return any(_within_loss(value, operand) for operand in operands)


def _within_loss(value: object, operand: object) -> bool:
    if isinstance(value, bool) or isinstance(operand, bool):
        return False
    if not isinstance(value, int | float) or not isinstance(operand, int | float):
        return False
    if isinstance(value, int) and (abs(value) > _MAX_EXACT or value == operand):
        # Integers have no loss. A number of more than 6 digits is no shortened double, which would have an
        # exponent.
        return False
    return abs(value - operand) <= _RELATIVE_LOSS * max(abs(value), abs(operand))


def matches_predicates(fields: Mapping[str, Any], predicates: Mapping[str, str]) -> bool:
    """Whether a row matches the predicates as the server compares them: every value as text."""
    return all(_as_text(fields.get(name)) == value for name, value in predicates.items())


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:f}"
    return str(value) if isinstance(value, int | str) else None
