"""The code blocks of the pages, as a reader takes them: commands to type, files to save, output to expect."""

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
    """A fenced block; `place` is page and line."""

    place: str
    language: str
    title: str
    text: str

    @property
    def file(self) -> str | None:
        """The name under which a reader saves it."""
        return self.title if _FILE.fullmatch(self.title) else None

    @property
    def commands(self) -> bool:
        """Whether a reader types it into a shell, and the tests do too."""
        return self.language in ("sh", "console") and not self.title.startswith(NOT_RUN)

    def steps(self) -> list[tuple[str, str | None]]:
        """Commands, each with the output that is shown for it; None where none is shown."""
        if self.language == "sh":
            return [(self.text, None)]
        found: list[tuple[str, str | None]] = []
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command + "\n", output))
        return found


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page that name a language."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        place = f"{page.relative_to(ROOT)}:{line}"
        yield Block(place, found["language"], found["title"] or "", found["text"])


def agrees(shown: str, printed: str) -> bool:
    """Whether what was printed is what a page shows; `…` alone stands for lines, within a line for text."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else r"[^\n]*".join(map(re.escape, line.rstrip().split("…"))) + r" *\n"
        for line in shown.splitlines()
    )
    whole = printed if printed.endswith("\n") or not printed else printed + "\n"
    return re.fullmatch(pattern, whole) is not None
