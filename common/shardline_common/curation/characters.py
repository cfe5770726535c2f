r"""Classes of characters, the same in each Python: those of Unicode 3.2, which every Python carries.

The functions of strings (`isalpha`, `lower`, `\w`) follow the Unicode version of the running Python, so that
the next one might give other rows.
"""

import re
import unicodedata
from collections import Counter

# What str.split() takes as white space in the versions of Unicode below.
WHITE_SPACE = "\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACES = re.compile(f"[{WHITE_SPACE}]+")
_IS_SPACE = re.compile(f"[{WHITE_SPACE}]")
_SPLIT_IS_FROZEN = unicodedata.unidata_version in {"14.0.0", "15.0.0", "15.1.0"}

_OTHERS = re.compile("[^\x00-\x7f]")
# The German capital sharp s is younger than Unicode 3.2.
_YOUNGER = {"ẞ": "Lu"}


class _Categories(dict[str, str]):
    """The category of each character that occurred; that of white space is "Zs", as in `split_words`."""

    def __missing__(self, one: str) -> str:
        category = "Zs" if _IS_SPACE.match(one) else _YOUNGER.get(one)
        self[one] = category or unicodedata.ucd_3_2_0.category(one)
        return self[one]


CATEGORIES = _Categories()
"""The general category of a character, such as "Lu". Characters younger than Unicode 3.2 have "Cn"."""


def split_words(text: str) -> list[str]:
    """The words of a text: what white space separates."""
    if _SPLIT_IS_FROZEN:
        return text.split()
    return [word for word in _SPACES.split(text) if word]


def is_white(text: str) -> bool:
    """Whether a text has nothing but white space."""
    return not text or (text.isspace() if _SPLIT_IS_FROZEN else not split_words(text))


def beyond_ascii(text: str) -> Counter[str]:
    """How often each character occurs that ASCII does not have."""
    return Counter() if text.isascii() else Counter(_OTHERS.findall(text))


def of_ascii(
    *, white: bool = False, letters: bool = False, digits: bool = False, rest: bool = False
) -> bytes:
    """The characters of ASCII of some classes, to translate or delete them."""
    return bytes(
        code
        for code in range(128)
        if (white and _IS_SPACE.match(chr(code)))
        or (letters and chr(code).isalpha())
        or (digits and chr(code).isdigit())
        or (rest and not _IS_SPACE.match(chr(code)) and not chr(code).isalnum())
    )
