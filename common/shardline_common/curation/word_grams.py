"""The word n-grams of a text that occur more than once: what repetition rules measure."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Grams(NamedTuple):
    """Some n-grams: the characters that they hold, and the first word of the first one, if there is one."""

    chars: int
    first: int | None


NO_GRAMS = Grams(0, None)


_PAIR = 2


class WordGrams:
    """The repeated n-grams of some words. Those of n + 1 words are found among those of n.

    An n-gram can occur twice only if both of its (n - 1)-grams do. So every level after the first looks at
    the few places that are left, and no level makes the n-grams themselves.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        # The words at which a repeated n-gram starts, in order, each with the first place of the same. Of the
        # last n alone: a text of megabytes that only repeats itself has a place for each word, for each n.
        self._size = 0
        self._level: dict[int, int] = {}

    def top(self, size: int) -> Grams:
        """The most frequent n-gram: its characters, with single spaces between its words, times its count.

        Of equally frequent ones the first counts. If none occurs twice, there is none.
        """
        places = self._repeated(size)
        if not places:
            return NO_GRAMS
        counts = Counter(places.values())
        # `max` takes the first of equals, and a Counter keeps the order of occurrence.
        first = max(counts, key=counts.__getitem__)
        return Grams((self._length(first, size) + size - 1) * counts[first], first)

    def duplicated(self, size: int) -> Grams:
        """The n-grams that occurred before, as a reader from left to right finds them: they never overlap.

        The characters are those of the words alone. After a duplicate, the search goes on behind it.
        """
        seen: set[int] = set()
        chars, found, reached = 0, None, 0
        for place, gram in self._repeated(size).items():
            if place < reached:
                continue
            if gram in seen:
                chars += self._length(place, size)
                found = place if found is None else found
                reached = place + size
            else:
                seen.add(gram)
        return Grams(chars, found)

    def _length(self, place: int, size: int) -> int:
        return sum(map(len, self._words[place : place + size]))

    def _repeated(self, size: int) -> dict[int, int]:
        if size < self._size or not self._size:
            self._size, self._level = _PAIR, self._pairs()
        while self._size < size:
            self._size, self._level = self._size + 1, self._longer(self._level)
        return self._level

    def _pairs(self) -> dict[int, int]:
        # The whole text is counted by C, without a loop of Python: this is most of the cost.
        words = self._words
        counts = Counter(pairwise(words))
        if len(counts) >= len(words) - 1:
            return {}
        again = {pair for pair, count in counts.items() if count > 1}
        places = enumerate(pairwise(words))
        first: dict[tuple[str, str], int] = {}
        return {place: first.setdefault(pair, place) for place, pair in places if pair in again}

    def _longer(self, shorter: dict[int, int]) -> dict[int, int]:
        if not shorter:
            return shorter
        # Two n-grams are equal if their first and their last (n - 1)-grams are.
        many, following = len(self._words), shorter.get
        pairs: dict[int, int] = {}
        grams = {
            place: pairs.setdefault(gram * many + after, place)
            for place, gram in shorter.items()
            if (after := following(place + 1)) is not None
        }
        if len(pairs) == len(grams):
            return {}
        again = {gram for place, gram in grams.items() if gram != place}
        return {place: gram for place, gram in grams.items() if gram in again}
