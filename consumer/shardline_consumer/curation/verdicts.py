"""The verdict of a curator on a document. Light: workers import it, also for jobs without filters."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from shardline_common.job.messages import Facts

NOT_MEASURED = float("nan")
NOTHING: Mapping[str, int] = MappingProxyType({})


class Bounds(NamedTuple):
    """What a rule compares a value with; None: it has no such bound."""

    least: float | None
    most: float | None

    def broken_by(self, value: float) -> float | None:
        """The bound that a value breaks; None: it passes."""
        # NaN breaks none: every comparison with it is false.
        if self.least is not None and value < self.least:
            return self.least
        if self.most is not None and value > self.most:
            return self.most
        return None


class Curated(NamedTuple):
    """A document as it was judged: `reason` None keeps it.

    Its row is `head + score_text + tail`; `score` is in units of 0.0001. `facts` are those of its text, as it
    is in the row. Of a rule that dropped it, `value` is what the rule measured, and `threshold` the bound;
    NaN: nothing was. `pii`: by kind, the personal data that was found in a row.
    """

    reason: str | None
    head: bytes
    score_text: bytes
    tail: bytes
    score: int
    facts: Facts
    value: float = NOT_MEASURED
    threshold: float = NOT_MEASURED
    pii: Mapping[str, int] = NOTHING
