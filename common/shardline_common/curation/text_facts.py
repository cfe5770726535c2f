"""The facts of a document that filters share: each is computed once, and only when a filter asks for it."""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from shardline_common.curation.characters import CATEGORIES, beyond_ascii, is_white, of_ascii, split_words
from shardline_common.curation.word_grams import WordGrams

_WHITE = of_ascii(white=True)
_LETTERS = of_ascii(letters=True)
_DIGITS = of_ascii(digits=True)
_REST = of_ascii(rest=True)
_CAPITALS = _LETTERS.upper()
# bytes.split() does not know the separators U+001C to U+001F as white space.
_TO_WORDS = bytes.maketrans(_WHITE + _LETTERS, b" " * len(_WHITE) + _LETTERS.lower())
_WORD_MARKS = bytes(code not in _WHITE for code in range(256))
# With more different characters than this, one pass over the text is faster than one for each of them.
_FEW = 32


class TextFacts:
    """The text of a document, its metadata, and what is counted in it."""

    def __init__(self, text: str, metadata: Mapping[str, Any]) -> None:
        self.text = text
        self.metadata = metadata

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text, which a line feed divides, without their ends."""
        return self.text.split("\n")

    @cached_property
    def full_lines(self) -> list[str]:
        """The lines that have more than white space."""
        return [line for line in self.lines if not is_white(line)]

    @cached_property
    def paragraphs(self) -> list[str]:
        """The paragraphs, which two line feeds or more divide; none is empty."""
        if "\n\n" not in self.text:
            return [self.text.strip()]
        # More than two line feeds leave some at the start of the next part.
        parts = [part.lstrip("\n") for part in self.text.strip().split("\n\n")]
        return [part for part in parts if part]

    @cached_property
    def words(self) -> list[str]:
        """The words of the text: what white space separates."""
        return split_words(self.text)

    @cached_property
    def word_starts(self) -> list[int]:
        """The first character of each word: of use for previews only."""
        starts, reached = [], 0
        for word in self.words:
            start = self.text.index(word, reached)
            starts.append(start)
            reached = start + len(word)
        return starts

    @cached_property
    def grams(self) -> WordGrams:
        """The word n-grams that occur more than once."""
        return WordGrams(self.words)

    @cached_property
    def utf8(self) -> bytes:
        """The text in UTF-8; a lone surrogate has the bytes that UTF-8 would give it."""
        return self.text.encode("utf-8", "surrogatepass")

    @cached_property
    def lower(self) -> bytes:
        """The text in UTF-8, with the letters of ASCII in lower case."""
        return self.utf8.lower()

    @cached_property
    def others(self) -> Counter[str]:
        """How often each character occurs that ASCII does not have."""
        return beyond_ascii(self.text)

    @cached_property
    def spoken(self) -> int:
        """The number of words that have a letter, a mark or a digit."""
        # A byte for each character: 1 in words, 0 between them. Their neighbours differ twice for each word,
        # once for one at the start.
        marks = int.from_bytes(self._plain.translate(_WORD_MARKS, _REST), "little")
        return ((marks ^ marks >> 8).bit_count() + (marks & 1)) >> 1

    @cached_property
    def letter_words(self) -> list[bytes]:
        """The words reduced to letters and marks, ASCII in lower case, in UTF-8; none is empty."""
        return self._plain.translate(_TO_WORDS, _REST + _DIGITS).split()

    @cached_property
    def word_counts(self) -> Counter[bytes]:
        """How often each of `letter_words` occurs."""
        return Counter(self.letter_words)

    @cached_property
    def letters(self) -> int:
        """The number of letters."""
        return self._of_ascii(_LETTERS) + self._of_others("L")

    @cached_property
    def capitals(self) -> int:
        """The number of capital letters."""
        return self._of_ascii(_CAPITALS) + self._of_others("Lu")

    @cached_property
    def digits(self) -> int:
        """The number of decimal digits."""
        return self._of_ascii(_DIGITS) + self._of_others("Nd")

    @cached_property
    def visible(self) -> int:
        """The number of characters that are not white space."""
        return len(self.text) - self._of_ascii(_WHITE) - self._of_others("Z")

    def count_ascii(self, characters: bytes) -> int:
        """How many characters of the text are among some of ASCII."""
        return self._of_ascii(characters)

    def _of_ascii(self, characters: bytes) -> int:
        return len(self.utf8) - len(self.utf8.translate(None, characters))

    def _of_others(self, category: str) -> int:
        found = self.others.items()
        return sum([count for one, count in found if CATEGORIES[one].startswith(category)])

    @cached_property
    def _plain(self) -> bytes:
        """The text without the signs that ASCII does not have, and with its white space as that of ASCII."""
        others = self.others
        kinds = {one: CATEGORIES[one][0] for one in others}
        changed = {one: _IN_WORDS[kind] for one, kind in kinds.items() if kind in _IN_WORDS}
        if not changed:
            return self.utf8
        if len(changed) > _FEW:
            table = {ord(one): new for one, new in changed.items()}
            return self.text.translate(table).encode("utf-8", "surrogatepass")
        plain = self.text
        for one, new in changed.items():
            plain = plain.replace(one, new)
        return plain.encode("utf-8", "surrogatepass")


# What stands for characters beyond ASCII in words, by the first letter of their category; others stay.
_IN_WORDS = {"Z": " ", "N": "0", "P": "", "S": "", "C": ""}
