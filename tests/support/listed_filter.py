"""A filter of another package, for tests: it drops texts that are lines of a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shardline_common.curation.filter import FilterKind, Rule
from shardline_common.curation.text_facts import TextFacts


class Listed(BaseModel):
    """Texts that a file lists."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    texts: Annotated[str, Field(description="The address of the file.", examples=["s3://b/texts.txt"])]
    most: Annotated[int | None, Field(description="The most occurrences.", examples=[0])] = 0


def _files(parameters: Listed) -> Mapping[str, str]:
    return {"texts": parameters.texts}


def _rules(parameters: Listed, files: Mapping[str, Path]) -> Sequence[Rule]:
    lines = files["texts"].read_text("utf-8").splitlines()

    def listed(facts: TextFacts) -> float:
        if facts.text == "fail":
            raise ValueError("this text makes the filter fail")
        return lines.count(facts.text)

    return [Rule("listed", listed, most=parameters.most, parameter="most")]


FILTER = FilterKind("texts", 1, Listed, _rules, files=_files)
