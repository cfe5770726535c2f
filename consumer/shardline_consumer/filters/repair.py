"""The repair of encoding damage, such as `GrÃ¶ÃŸe` for `Größe`. It drops nothing.

`quality.repair` of a job is a filter without rules, so that the version of ftfy is frozen in the plan.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Rule
from shardline_consumer.filters.parameters import Parameters


class Repair(Parameters):
    """The repair of encoding damage. Jobs name it as `quality.repair`, and not in `quality.filters`."""

    by: Annotated[Literal["ftfy"], Field(description="The library.", examples=["ftfy"])] = "ftfy"


def repairer() -> Callable[[str], str]:
    """What repairs a text, line by line: one line that was decoded wrongly says nothing about the next.

    Only the decoding is repaired. Quotes, ligatures, widths and line ends stay as they are.
    """
    import ftfy

    fix = ftfy.fix_encoding

    def repaired(text: str) -> str:
        # Of ASCII alone nothing can be repaired, and ftfy would look at every line.
        found = text if text.isascii() else "\n".join(map(fix, text.split("\n")))
        try:
            found.encode()
        except UnicodeEncodeError:
            # Half of a surrogate pair has no JSON.
            return text
        return found

    return repaired


def _rules(_: Repair, __: Mapping[str, Path]) -> Sequence[Rule]:
    return ()


FILTER = FilterKind("repair", 1, Repair, _rules, libraries=("ftfy",))
