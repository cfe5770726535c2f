"""The code blocks of the pages, as a reader uses them: commands to type, files to save, expected output."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
NOT_RUN = "Not run by the tests: "

_FENCE = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]*)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"[\w.-]+\.(?:json|py|sql|toml)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `place` is its page and line."""

    place: str
    language: str
    title: str
    text: str

    @property
    def file(self) -> str | None:
        """The name under which a reader saves the block, or None."""
        return self.title if _FILE.fullmatch(self.title) else None

    @property
    def commands(self) -> bool:
        """Whether a reader types the block into a shell, and the tests run it."""
        return self.language in ("sh", "console") and not self.title.startswith(NOT_RUN)

    def steps(self) -> list[tuple[str, str | None]]:
        """Return the commands, each with the output that the page shows for it, or None."""
        if self.language == "sh":
            return [(self.text, None)]
        found: list[tuple[str, str | None]] = []
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command + "\n", output))
        return found


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page that name a language."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        place = f"{page.relative_to(ROOT)}:{line}"
        yield Block(place, found["language"], found["title"] or "", found["text"])


def agrees(shown: str, printed: str) -> bool:
    """Whether the output is what a page shows; a line `…` is any lines, `…` within a line any text."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else r"[^\n]*".join(map(re.escape, line.rstrip().split("…"))) + r" *\n"
        for line in shown.splitlines()
    )
    whole = printed if printed.endswith("\n") or not printed else printed + "\n"
    return re.fullmatch(pattern, whole) is not None
