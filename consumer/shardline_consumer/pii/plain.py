"""A text in plain characters: digits, dashes, spaces and full-width forms as in ASCII, nothing invisible."""

import re
from bisect import bisect_right
from typing import NamedTuple

# Frozen tables: what a text holds must not depend on the Unicode version of the running Python.
_INVISIBLE = "\xad\u200b-\u200f\u2060\ufeff"
_DIGITS = (
    0x0660,
    0x06F0,
    0x07C0,
    0x0966,
    0x09E6,
    0x0A66,
    0x0E50,
    0xFF10,
    0x1D7CE,
    0x1D7D8,
    0x1D7E2,
    0x1D7EC,
    0x1D7F6,
)
_SPACES = "\xa0\u2000-\u200a\u202f\u205f\u3000"
_DASHES = "\u2010-\u2015\u2212\ufe58\ufe63\uff0d"


def _table() -> dict[int, int | None]:
    table: dict[int, int | None] = {}
    for zero in _DIGITS:
        table.update({zero + digit: ord("0") + digit for digit in range(10)})
    # Full-width forms, of which digits and the dash are above too.
    table.update({code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)})
    table.update(dict.fromkeys(_codes(_SPACES), ord(" ")))
    table.update(dict.fromkeys(_codes(_DASHES), ord("-")))
    table.update(dict.fromkeys(_codes(_INVISIBLE)))
    table[0x2044] = table[0x2215] = ord("/")
    return table


def _codes(ranges: str) -> list[int]:
    """The characters of a table of ranges, as they stand in the class of a regular expression."""
    codes: list[int] = []
    for first, last in re.findall("(.)(?:-(.))?", ranges):
        codes.extend(range(ord(first), ord(last or first) + 1))
    return codes


_TABLE = _table()
_SPECIAL = re.compile(f"[{''.join(map(chr, sorted(_TABLE)))}]+")
# Those of the code page of Western Europe, beside the soft hyphen.
_WESTERN = {"\xa0": " ", "\u2013": "-", "\u2014": "-"}
_HIDDEN = re.compile(f"[{_INVISIBLE}]")


class PlainText(NamedTuple):
    """A text in plain characters, and the way back to the text it was made of."""

    text: str
    removed: list[int]
    """For each character that was removed: how many characters of the plain text stand before it."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The part of the original text of which a part of the plain text, not empty, was made."""
        if not self.removed:
            return start, end
        return start + bisect_right(self.removed, start), end + bisect_right(self.removed, end - 1)


def plain(text: str) -> PlainText:
    """The text in plain characters. Most texts have none to change, and are returned as they are."""
    if text.isascii():
        return PlainText(text, [])
    removed: list[int] = []
    if _is_western(text):
        if "\xad" in text:
            removed, text = _shown(text)
        for special, character in _WESTERN.items():
            text = text.replace(special, character)
        return PlainText(text, removed)
    if _HIDDEN.search(text):
        removed, text = _shown(text)
    return PlainText(_SPECIAL.sub(lambda run: run[0].translate(_TABLE), text), removed)


def _is_western(text: str) -> bool:
    """Whether the text has no special characters but the few of this code page: much faster than to look."""
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str) -> tuple[list[int], str]:
    removed = [hidden.start() - before for before, hidden in enumerate(_HIDDEN.finditer(text))]
    return removed, _HIDDEN.sub("", text)
