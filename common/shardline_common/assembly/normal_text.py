"""The normal form of a text: duplicates are texts of equal form. It never changes (docs/minhash-v1.md)."""

import re
import unicodedata
from collections.abc import Callable
from itertools import groupby

# The white space of Unicode 15.1. The table is frozen: str.split() of another Python may know more, and then
# the same texts would be duplicates on one machine only.
WHITE_SPACE = "\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# The same in UTF-8. A pattern that begins with a literal byte is searched as fast as the byte.
_SPACES_OF_ASCII = bytes.maketrans(b"\t\n\v\f\r\x1c\x1d\x1e\x1f", b" " * 9)
_SPACES_BEYOND = [
    re.compile(pattern)
    for pattern in (
        rb"\xc2[\x85\xa0]",
        rb"\xe1\x9a\x80",
        rb"\xe2(?:\x80[\x80-\x8a\xa8\xa9\xaf]|\x81\x9f)",
        rb"\xe3\x80\x80",
    )
]

# Ranges in which Unicode 3.2 knows each character: Latin, Cyrillic, punctuation, currencies, Han, Hangul.
KNOWN = "\0-\u0220\u0400-\u0486\u2000-\u2052\u20a0-\u20b1\u4e00-\u9fa5\uac00-\ud7a3"
_PERHAPS_UNKNOWN = re.compile(f"[^{KNOWN}]")
# The German capital sharp s is younger than Unicode 3.2.
_FOLDED_TOO = "ẞ"


def normal_text(text: str, *, ignore_case: bool = False) -> str:
    """NFC, case folded if asked for, each run of white space as one space, none at the ends.

    Case and composition change only the characters of Unicode 3.2 (and ẞ), which have the same in every later
    version. All others stay as they are.
    """
    return normal_bytes(text, ignore_case=ignore_case).decode("utf-8", "surrogatepass")


def normal_bytes(text: str, *, ignore_case: bool = False) -> bytes:
    """The normal form in UTF-8. A lone surrogate is written as if it were a character."""
    normal = folded_text(text) if ignore_case else _composed(text)
    data = normal.encode("utf-8", "surrogatepass")
    if not data.isascii():
        for spaces in _SPACES_BEYOND:
            data = spaces.sub(b" ", data)
    data = data.translate(_SPACES_OF_ASCII)
    # To split a text into words and join them takes longer than all before it.
    return b" ".join(data.split()) if b"  " in data else data.strip(b" ")


def folded_text(text: str) -> str:
    """The normal form without case, but with its white space."""
    # The fold of a composed character may be decomposed: ǰ becomes j and a caron.
    return _composed(_folded(_composed(text)))


def _composed(text: str) -> str:
    """NFC of each run of characters that Unicode 3.2 knows.

    `ucd_3_2_0.normalize` would not do: it sorts and composes younger characters as the running Python does.
    """
    # Each part of a text in NFC is in NFC, so that a whole text in NFC has nothing to change in its runs.
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return _changed_runs(text, lambda run: unicodedata.normalize("NFC", run))


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    if _PERHAPS_UNKNOWN.search(text) is None:
        return text.casefold()
    kept = {one for one in set(text) if _is_unknown(one) and one.casefold() != one} - {_FOLDED_TOO}
    # A character's fold does not depend on its neighbours.
    return "".join([one if one in kept else one.casefold() for one in text]) if kept else text.casefold()


def _changed_runs(text: str, change: Callable[[str], str]) -> str:
    if not any(map(_is_unknown, set(text))):
        return change(text)
    runs = [(unknown, "".join(run)) for unknown, run in groupby(text, _is_unknown)]
    return "".join([run if unknown else change(run) for unknown, run in runs])


def _is_unknown(character: str) -> bool:
    """Whether Unicode 3.2 has not assigned the character. Every Python has this version's categories."""
    return unicodedata.ucd_3_2_0.category(character) == "Cn"
