"""Personal data as a filter: `pii` of a job is one, so that its version is frozen in the plan as of any."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shardline_common.curation.filter import FilterKind, Part, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.pii import KINDS, VERSION, find


class PersonalData(BaseModel):
    """Personal data in text and metadata. Jobs name it in the field `pii`, and not in `quality.filters`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    counts = _Counts(kinds)
    return [Rule(kind, counts.of(kind), most=0, find=_first(kind)) for kind in kinds]


class _Counts:
    """Counts the findings of a document once for the rules of all kinds."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self._kinds = kinds
        # One reference, replaced as a whole: documents may be judged on several threads.
        self._last: tuple[TextFacts | None, Counter[str]] = (None, Counter())

    def of(self, kind: str) -> Callable[[TextFacts], float]:
        def measure(facts: TextFacts) -> float:
            document, counts = self._last
            if document is not facts:
                texts = (facts.text, *metadata_texts(facts.metadata))
                counts = Counter(found.kind for text in texts for found in find(text, self._kinds))
                self._last = (facts, counts)
            return counts[kind]

        return measure


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
