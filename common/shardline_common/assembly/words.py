"""The words of a text, of which minhash-v1 makes its shingles. Frozen (docs/minhash-v1.md)."""

import re

from shardline_common.assembly.normal_text import folded_text

# Tables of minhash-v1, as ranges of a regular expression's class. Other characters belong to words.
REMOVED = "\xad\u200b-\u200d\u2060\ufeff"  # soft hyphen, zero width, byte order mark: inside of words
SEPARATORS = (  # white space, punctuation and signs; those of ASCII are all but its letters and digits
    "\x80-\xa9\xab\xac\xae-\xb1\xb4\xb6-\xb8\xbb\xbf"
    "\u060c\u061b\u061f\u06d4\u0964\u0965\u1680"
    "\u2000-\u200a\u200e-\u205f\u2061-\u206f"
    "\u3000-\u3004\u3008-\u3020\u3030\u3036\u3037\u303d-\u303f\ufe30-\ufe4f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
SINGLE = (  # scripts that write no spaces between words: each character is a word
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)

_SPECIAL = f"[{REMOVED}{SEPARATORS}{SINGLE}]"
# The doubled class lets the search skip to a run's first character: `[…]+` would try at each position.
_RUN = re.compile(_SPECIAL + _SPECIAL + "*")
_IS_REMOVED = re.compile(f"[{REMOVED}]")
_IS_SEPARATOR = re.compile(f"[{SEPARATORS}]")
_ASCII = bytes.maketrans(
    bytes(range(128)),
    bytes(byte if chr(byte).isalnum() else 0x20 for byte in range(128)),
)


class _Replacements(dict[int, str]):
    """What stands for a special character, for str.translate; filled as they occur."""

    def __missing__(self, code: int) -> str:
        one = chr(code)
        if _IS_REMOVED.match(one):
            self[code] = ""
        elif _IS_SEPARATOR.match(one):
            self[code] = " "
        else:
            self[code] = f" {one} "
        return self[code]


_REPLACEMENTS = _Replacements()


def words_of(text: str) -> list[bytes]:
    """The words in UTF-8, in order, case folded, without punctuation."""
    plain = folded_text(text)
    if not plain.isascii():
        plain = _RUN.sub(_replaced, plain)
    return plain.encode("utf-8", "surrogatepass").translate(_ASCII).split()


def _replaced(run: re.Match[str]) -> str:
    return run[0].translate(_REPLACEMENTS)
