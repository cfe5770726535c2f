"""Documents for filters: law in German, documentation in English, and each of them spoilt."""

import ast
import random
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.corpus import corpus_file, lines

_SHORTEST, _LONGEST = 1_500, 2_700
_SEED = 21


def german(count: int, corpus: Path | None = None) -> list[str]:
    """Texts of a corpus, of every length. The sample of the project repeats itself more than law does."""
    with tempfile.TemporaryDirectory(prefix="shardline-bench-") as folder:
        found = lines(corpus or corpus_file(Path(folder)))
    texts = [one["content"] for one in found if one["content"].strip()]
    random.Random(_SEED).shuffle(texts)
    return texts[:count]


def of_two_kilobytes(count: int, corpus: Path | None = None) -> list[str]:
    """Texts of the corpus of about 2 KB."""
    return [text for text in german(60_000, corpus) if _SHORTEST < len(text) < _LONGEST][:count]


def english(count: int) -> list[str]:
    """What the modules of Python's library say about themselves and their parts."""
    folder = Path(ast.__file__).parent
    texts = [text for path in sorted(folder.rglob("*.py")) for text in _docstrings(path)]
    random.Random(_SEED).shuffle(texts)
    return texts[:count]


def _docstrings(path: Path) -> Iterator[str]:
    if "test" in path.parts or "site-packages" in path.parts or "lib2to3" in path.parts:
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            text = ast.get_docstring(node) or ""
            if len(text) >= 80:
                yield textwrap.dedent(text)


def spoilt(texts: Sequence[str]) -> list[str]:
    """Each text with one of the troubles that rules look for, in turn."""
    troubles: tuple[Callable[[str], str], ...] = (
        lambda text: text,
        lambda text: f"{text}\n\n{text}",
        lambda text: f"{text}\n{text[: len(text) // 2]}",
        lambda text: "\n".join(f"- {line}" for line in text.split("\n")),
        lambda text: "\n".join(f"{line} ..." for line in text.split("\n")),
        lambda text: text.replace(" ", " #", text.count(" ") // 3),
        lambda text: text.replace(" ", "\n"),
        lambda text: " ".join(word[:2] for word in text.split()),
        lambda text: text.replace(" ", ""),
        lambda text: text + " und so weiter" * 40,
        lambda text: " ".join(text.split()) + ".",
        lambda text: text + "\n{ lorem ipsum }.",
    )
    return [troubles[place % len(troubles)](text) for place, text in enumerate(texts)]
