"""The site builds strictly, and every link and picture in it exists."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.blocks import DOCS, ROOT
from tests.docs.elsewhere import elsewhere


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    found = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    # The page for unknown addresses has absolute links, because it is served under any address.
    del found[site / "404.html"]
    return found


def test_every_page_of_docs_is_in_the_site(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").exists(), page
    assert (site / "search" / "search_index.json").stat().st_size > 100_000
    assert {"openapi.json", "asyncapi.json", "job.schema.json"} <= {path.name for path in site.iterdir()}


def within(pages: dict[Path, Page]) -> Iterator[tuple[Path, str, Path, str]]:
    """Yield the links within the site: the page, the link, the target file, the anchor in it."""
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if not parts.scheme and not parts.netloc:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                yield path, link, target, unquote(parts.fragment)


def test_links_within_the_site_exist(pages: dict[Path, Page]) -> None:
    followed = 0
    for path, link, target, anchor in within(pages):
        file = target / "index.html" if target.is_dir() else target
        assert file.exists(), (path.name, link)
        # The theme's own jump targets begin with two underscores and are made by its script.
        if anchor and file in pages and not anchor.startswith("__"):
            assert anchor in pages[file].anchors, (path.name, link)
            followed += 1
    assert followed > 200


def test_links_of_the_readme_exist(pages: dict[Path, Page], site: Path) -> None:
    followed = 0
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]+)(?:#([^)]*))?\)", text):
        assert (ROOT / target).exists(), target
        if anchor:
            page = (site / Path(target).relative_to("docs")).with_suffix(".html")
            assert anchor in pages[page].anchors, (target, anchor)
        followed += 1
    assert followed > 10


def test_the_site_loads_nothing_from_other_sites(pages: dict[Path, Page]) -> None:
    # A reader may follow links to other sites; a page must not load anything from them.
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert "fonts.googleapis" not in text
        assert 'src="http' not in text, path
        assert '<link rel="stylesheet" href="http' not in text, path


def test_links_to_other_sites_use_https() -> None:
    # The test does not fetch them; `python -m tests.docs.elsewhere` lists them.
    found = elsewhere()
    assert found
    assert [link for link in found if not link.startswith("https://")] == []
