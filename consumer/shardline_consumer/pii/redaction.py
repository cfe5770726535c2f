"""A text without its personal data: typed placeholders stand for it, the same one for the same value."""

import re
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from shardline_consumer.pii.finder import find
from shardline_consumer.pii.plain import plain

Known = dict[str, dict[str, str]]
"""The placeholders of a document by kind, and by value. One for its text and its metadata."""

_SEPARATORS = re.compile(r"[ \t\n./()\[\]{}<>-]+")


class Redacted(NamedTuple):
    """A text in which nothing more is found, and how many parts of each kind were replaced."""

    text: str
    counts: dict[str, int]


def redact(text: str, kinds: Collection[str] | None = None, known: Known | None = None) -> Redacted:
    """Replace the personal data of a text, such as `max@example.org` by `[EMAIL_1]`.

    Args:
        text: any text.
        kinds: the kinds to replace; None: all.
        known: the placeholders so far, which grow; give the same for all texts of a document.
    """
    placeholders: Known = {} if known is None else known
    counts: Counter[str] = Counter()
    # A part that overlapped another may show when that one is replaced, and a word come into the reach of a
    # number. Each turn replaces something that no placeholder holds, so the turns end.
    while found := find(text, kinds):
        parts: list[str] = []
        behind = 0
        for kind, start, end in found:
            parts += text[behind:start], _placeholder(kind, text[start:end], placeholders)
            behind = end
            counts[kind] += 1
        text = "".join([*parts, text[behind:]])
    return Redacted(text, dict(sorted(counts.items())))


def _placeholder(kind: str, value: str, known: Known) -> str:
    of_kind = known.setdefault(kind, {})
    key = _SEPARATORS.sub("", plain(value).text).lower()
    return of_kind.setdefault(key, f"[{kind.upper()}_{len(of_kind) + 1}]")
