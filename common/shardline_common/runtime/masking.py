"""Secrets in texts that people read: logs, errors, records. Pure.

A secret of at least 8 characters is replaced wherever it stands. A shorter one may be a part of any word:
replaced everywhere, it makes prose unreadable and shows by the gaps what it is. It is replaced where it
stands as a value: as the whole text, within quotes, behind `=` or a name such as `password:`, and as a part
of a URL; one of at least 4 characters also where it stands as a word.
"""

import re
from collections.abc import Iterable
from urllib.parse import quote

MASK = "********"
SHORTEST_IN_PROSE = 8
"""A secret with fewer characters is replaced only where it stands as a value."""

_SHORTEST_WORD = 4
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]+")
# Behind a name and a colon or `=` there is a value; behind a name and a blank there may be any word.
_NAMES = r"(?i:pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|key)"
_END = r"(?=$|[\s&;,)\]}>\"'`]|[.:!?](?:\s|$))"


class Masker:
    """Replaces secrets in texts: as they are, percent-encoded, and as `repr` writes them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = set(filter(None, secrets))
        # Longest first, because one secret may contain another.
        self._long = _by_length(one for secret in known if not _is_short(secret) for one in _forms(secret))
        short = _by_length(one for secret in known if _is_short(secret) for one in _forms(secret))
        self._whole = frozenset(short)
        self._values: re.Pattern[str] | None = None
        self._parts: re.Pattern[str] | None = None
        if short:
            one = "(?:" + "|".join(map(re.escape, short)) + ")"
            word = "|".join(map(re.escape, [form for form in short if len(form) >= _SHORTEST_WORD]))
            self._values = re.compile(
                rf"(?<=\")(?P<q>{one})(?=\")|(?<=')(?P<s>{one})(?=')|(?<=`)(?P<b>{one})(?=`)"
                rf"|(?<![\w-])(?P<w>{word or '(?!)'})(?![\w-])"
                rf"|(?P<name>=\s?|{_NAMES}\s?[:=]\s?|\b(?i:bearer|basic)\s){one}{_END}"
            )
            self._parts = re.compile(rf"(?<=[/:@?&=#;,]){one}(?=$|[/:@?&=#;,])")

    def mask(self, text: str) -> str:
        """The text without the secrets."""
        for form in self._long:
            text = text.replace(form, MASK)
        if self._values is None or self._parts is None:
            return text
        if text in self._whole:
            return MASK
        parts = self._parts
        text = _URL.sub(lambda found: parts.sub(MASK, found[0]), text)
        return self._values.sub(lambda found: (found["name"] or "") + MASK, text)


def mask(text: str, secrets: tuple[str, ...]) -> str:
    """The text without these secrets."""
    return Masker(secrets).mask(text) if secrets else text


def _is_short(secret: str) -> bool:
    return len(secret) < SHORTEST_IN_PROSE


def _forms(secret: str) -> tuple[str, ...]:
    return secret, quote(secret, safe=""), repr(secret)[1:-1]


def _by_length(forms: Iterable[str]) -> list[str]:
    return sorted(set(forms), key=lambda form: (-len(form), form))
