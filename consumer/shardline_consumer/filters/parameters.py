"""What the parameters and rules of text filters share."""

import math
import re
from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from shardline_common.curation.filter import Part
from shardline_common.curation.text_facts import TextFacts

Share = Annotated[float, Field(ge=0, le=1)] | None
"""A bound of a part of a whole; None switches the rule off."""
Ratio = Annotated[float, Field(ge=0, le=1_000_000)] | None
"""A bound of a quotient; None switches the rule off."""
Count = Annotated[int, Field(ge=0, le=1 << 53)] | None
"""A bound of a number; None switches the rule off."""
Find = Callable[[TextFacts], Part | None]
T = TypeVar("T")


class Parameters(BaseModel):
    """The parameters of a filter."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def share(part: float, whole: int) -> float:
    """The quotient; NaN, which passes every bound, without a whole."""
    return part / whole if whole else math.nan


def of_last(compute: Callable[[TextFacts], T]) -> Callable[[TextFacts], T]:
    """The same, with its result for the last document kept: several rules ask for it, one after the other."""
    # One reference, replaced as a whole: documents may be judged on several threads.
    last: tuple[TextFacts, T] | None = None

    def found(facts: TextFacts) -> T:
        nonlocal last
        known = last
        if known is None or known[0] is not facts:
            known = last = (facts, compute(facts))
        return known[1]

    return found


def first_match(pattern: re.Pattern[str]) -> Find:
    """Finds the first match of a pattern."""

    def find(facts: TextFacts) -> Part | None:
        found = pattern.search(facts.text)
        return found.span() if found else None

    return find


def first_line(accepts: Callable[[str], bool]) -> Find:
    """Finds the first line that is accepted; white lines are not asked."""

    def find(facts: TextFacts) -> Part | None:
        start = 0
        for line in facts.lines:
            if line.strip() and accepts(line):
                return start, start + len(line)
            start += len(line) + 1
        return None

    return find


def words_from(facts: TextFacts, first: int | None, count: int) -> Part | None:
    """The part of a text from one word on."""
    if first is None:
        return None
    last = min(first + count, len(facts.words)) - 1
    return facts.word_starts[first], facts.word_starts[last] + len(facts.words[last])
