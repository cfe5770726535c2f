"""The tests, bugs and links that the docs name exist."""

import re
from pathlib import Path

import pytest

from tests.simulation.mutants import CAUGHT
from tests.simulation.slice_mutants import SLICED

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("*/README.md"),
    *sorted((ROOT / "docs").glob("*.md")),
]


def test_every_fault_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", text)
    assert len(named) > 25
    for path, name in named:
        assert re.search(
            rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE
        ), (
            path,
            name,
        )


def test_every_planted_bug_is_listed() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in (*CAUGHT, *SLICED))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
