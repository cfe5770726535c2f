"""The shape of a filter, of those of Shardline and of those that other packages register.

A filter is a list of rules. A rule measures a document and compares the value with a bound of the job; the
first bound that does not hold drops the document, with the reason `<filter>.<rule>`. Since every rule gives a
value for every document, a preview can show how values are spread, and propose bounds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from shardline_common.curation.text_facts import TextFacts

Part = tuple[int, int]
"""A part of a text: its first character, and the one behind its last."""
P = TypeVar("P", bound=BaseModel)


class Rule(NamedTuple):
    """One rule of a filter. A document passes if its value is at least `least` and at most `most`.

    Args:
        name: the second half of the reason, such as `too_short`; unique in its filter.
        measure: the value of a document. NaN, or infinity, passes: there is nothing to measure.
        least: the lower bound; None: there is none.
        most: the upper bound; None: there is none.
        parameter: the parameter of the filter that holds the bound; None: no single one does.
        find: the part of the text that a reader should look at; None, or its result None: the whole text.
    """

    name: str
    measure: Callable[[TextFacts], float]
    least: float | None = None
    most: float | None = None
    parameter: str | None = None
    find: Callable[[TextFacts], Part | None] | None = None


@dataclass(frozen=True, slots=True)
class FilterKind(Generic[P]):
    """A kind of filter, which jobs name. An entry point of the group `shardline.filters` leads to it.

    Args:
        name: its name in jobs: lower case letters, digits and underscores.
        version: raised whenever the same parameters may judge a document otherwise. It is frozen in the plan
            of a job, and a worker with another one leaves the job alone.
        parameters: their model; every parameter has a description and a default, or is required.
        rules: makes the rules of some parameters, in the order in which they are asked; cheap ones first.
            The files are those of `files` by their names, on the local disk, with the contents of the plan.
        files: the files that some parameters name, as addresses by a name of their own.
        libraries: the distributions whose versions decide too. They are frozen in the plan.
    """

    name: str
    version: int
    parameters: type[P]
    rules: Callable[[P, Mapping[str, Path]], Sequence[Rule]]
    files: Callable[[P], Mapping[str, str]] | None = None
    libraries: tuple[str, ...] = ()


AnyFilterKind = FilterKind[Any]
