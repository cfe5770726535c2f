"""List the links of the pages to other sites: `python -m tests.docs.elsewhere`."""

import re
import sys

from tests.docs.blocks import DOCS, ROOT


def elsewhere() -> dict[str, str]:
    """Return each link to another site, and the first page that has it."""
    found: dict[str, str] = {}
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]:
        for link in re.findall(r"\]\((\w+://[^)\s]+)\)", page.read_text(encoding="utf-8")):
            found.setdefault(link, str(page.relative_to(ROOT)))
    return found


if __name__ == "__main__":
    sys.stdout.writelines(f"{link}  {page}\n" for link, page in elsewhere().items())
