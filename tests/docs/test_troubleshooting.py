"""docs/troubleshooting.md explains every error, code and reason of the code, and no other."""

import re
from collections.abc import Iterable, Iterator

import pytest

from shardline_common.errors import FailureCode, ShardlineError
from shardline_consumer.filters.clara import Rejection
from shardline_producer.sources.documents import DeadLetterReason
from tests.docs.blocks import DOCS, ROOT


def tree(root: type[Exception]) -> Iterator[str]:
    """Yield the names of a class of shardline_common.errors and of its subclasses there."""
    yield root.__name__
    for child in root.__subclasses__():
        if child.__module__ == root.__module__:
            yield from tree(child)


def refusals() -> list[str]:
    """Return the reasons with which the producer refuses job messages."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "producer").rglob("*.py"))
    return re.findall(r"_refuse\(\s*\w+,\s*\"(\w+)\"", text)


def entries(section: str) -> list[tuple[str, list[str]]]:
    """Return the rows of the table under a heading: the name in the first cell, and the other cells."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    _, _, after = text.partition(f"\n## {section}\n")
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", after.partition("\n## ")[0], re.MULTILINE)
    return [(name, [cell.strip() for cell in rest.split("|")]) for name, rest in rows]


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("Errors of a command", set(tree(ShardlineError))),
        ("Codes of a failed job", set(FailureCode)),
        ("Reasons of dead letters", set(DeadLetterReason)),
        ("Reasons of refused job messages", set(refusals())),
        ("Reasons of rejections", set(Rejection)),
    ],
)
def test_each_error_has_one_entry_with_cause_and_remedy(section: str, names: Iterable[str]) -> None:
    found = entries(section)
    assert sorted(name for name, _ in found) == sorted(map(str, names))
    for name, cells in found:
        assert all(cells), name
