"""The version is defined once, and the changelog has an entry for it."""

import re
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest

from shardline_common import __version__

ROOT = Path(__file__).parent.parent.parent
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
HEADING = re.compile(r"\[(\d+)\.(\d+)\.(\d+)\] - (unreleased|\d{4}-\d{2}-\d{2})")


def entries(text: str) -> list[tuple[tuple[int, ...], str]]:
    """(version, when) of every entry, checked for the form of Keep a Changelog."""
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        match = HEADING.fullmatch(heading)
        assert match, f"'{heading}' is not [VERSION] - DATE"
        kinds = re.findall(r"^### (.*)$", body, re.MULTILINE)
        assert kinds, f"{heading} says nothing"
        assert set(kinds) <= set(KINDS), kinds
        assert len(set(kinds)) == len(kinds), f"{heading} has a kind twice"
        for kind in re.split(r"^### .*$", body, flags=re.MULTILINE)[1:]:
            assert re.match(r"\s*- \S", kind), f"{heading} has a kind without a point"
        found.append((tuple(map(int, match.groups()[:3])), match[4]))
    return found


def check(text: str) -> None:
    """Newest first, dated all but the current one, which is there."""
    found = entries(text)
    versions = [number for number, _ in found]
    assert versions == sorted(set(versions), reverse=True)
    assert ".".join(map(str, found[0][0])) == __version__, "the current version has no entry"
    dates = [date.fromisoformat(when) for _, when in found if when != "unreleased"]
    assert dates == sorted(dates, reverse=True)
    assert [when for _, when in found[1:]].count("unreleased") == 0


def test_the_changelog_has_this_version() -> None:
    check((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "## [0.0.1] - unreleased\n### Added\n- x\n",
        f"## [{__version__}] - yesterday\n### Added\n- x\n",
        f"## [{__version__}] - unreleased\n### News\n- x\n",
        f"## [{__version__}] - unreleased\n### Added\n",
        f"## [{__version__}] - unreleased\n### Added\n- x\n## [0.0.1] - unreleased\n### Added\n- x\n",
        f"## [{__version__}] - 2026-01-01\n### Added\n- x\n## [0.0.1] - 2026-01-02\n### Added\n- x\n",
    ],
)
def test_a_malformed_changelog_is_refused(text: str) -> None:
    with pytest.raises(AssertionError):
        check(text)


def test_the_version_is_defined_once() -> None:
    assert version("shardline") == __version__
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project
    # What has to name it beside that: an image has a tag.
    manifest = (ROOT / "deploy" / "kubernetes" / "cronjob.yaml").read_text(encoding="utf-8")
    assert re.findall(r"image: shardline:(\S+)", manifest) == [__version__]
