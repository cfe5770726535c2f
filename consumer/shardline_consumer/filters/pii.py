"""Personal data as a filter: `pii` of a job is one, so that its version is frozen in the plan as of any."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Part, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Parameters, of_last
from shardline_consumer.pii import KINDS, VERSION, find


class PersonalData(Parameters):
    """Personal data in text and metadata. Jobs name it in the field `pii`, and not in `quality.filters`."""

    action: Annotated[str, Field(description="What happens to it: see `pii`.", examples=["reject"])] = (
        "reject"
    )
    kinds: Annotated[
        list[str] | None, Field(description="The kinds; null: all of them.", examples=[["email"]])
    ] = None


def kinds_of(parameters: PersonalData) -> tuple[str, ...]:
    """The kinds that a job asks for, in the order in which they are looked for."""
    return KINDS if parameters.kinds is None else tuple(one for one in KINDS if one in parameters.kinds)


def _rules(parameters: PersonalData, _: Mapping[str, Path]) -> Sequence[Rule]:
    if parameters.action != "reject":
        return ()
    kinds = kinds_of(parameters)
    counts = of_last(lambda facts: count_kinds(facts.text, facts.metadata, kinds))
    return [Rule(kind, _count(kind, counts), most=0, find=_first(kind)) for kind in kinds]


def _count(kind: str, counts: Callable[[TextFacts], Counter[str]]) -> Callable[[TextFacts], float]:
    return lambda facts: counts(facts)[kind]


def count_kinds(text: str, metadata: Mapping[str, Any], kinds: Collection[str]) -> Counter[str]:
    """How much of each kind a text and its metadata have."""
    texts = (text, *metadata_texts(metadata))
    return Counter(found.kind for one in texts for found in find(one, kinds))


def _first(kind: str) -> Callable[[TextFacts], Part | None]:
    def first(facts: TextFacts) -> Part | None:
        return next(((found.start, found.end) for found in find(facts.text, (kind,))), None)

    return first


def metadata_texts(metadata: Mapping[str, Any]) -> Iterator[str]:
    """The texts of metadata, and its integers as texts: a column of phone numbers may have either type.

    The name of a column stands before its value, because it says what the value is.
    """
    for name, value in metadata.items():
        if isinstance(value, str):
            yield name_prefix(name) + value
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{name_prefix(name)}{value}"


def name_prefix(name: str) -> str:
    """The name of a column as a word before its value."""
    return f"{name.replace('_', ' ')}: "


FILTER = FilterKind("pii", VERSION, PersonalData, _rules)
