"""Clara's quality score as a filter: keep a document, or drop it with a reason."""

from enum import StrEnum
from typing import NamedTuple

from shardline_common.job.clara_score import clara_score, score_without_relevance, with_relevance
from shardline_common.job.messages import Facts

_UNITS = 10_000


class Rejection(StrEnum):
    """The reasons of a rejection; there are no others."""

    EMPTY = "empty"
    BELOW_MIN_SCORE = "below_min_score"


class Verdict(NamedTuple):
    """The decision on a document; `reason` None keeps it. `score` is in units of 0.0001, `text` its JSON."""

    reason: Rejection | None
    score: int
    text: bytes


def judge(facts: Facts, min_score: float) -> Verdict:
    """Keep a document that has text, and whose score, rounded to 4 decimals, is at least `min_score`."""
    return _verdict(clara_score(facts), facts.blank, min_score)


def _verdict(exact: float, blank: bool, min_score: float) -> Verdict:
    score = round(exact, 4) + 0.0
    reason = None
    if blank:
        reason = Rejection.EMPTY
    elif score < min_score:
        reason = Rejection.BELOW_MIN_SCORE
    return Verdict(reason, round(score * _UNITS), repr(score).encode())


class Judge:
    """`judge` for one threshold. Up to `cached` verdicts are kept: many documents have the same facts."""

    def __init__(self, min_score: float, cached: int = 65_536) -> None:
        self._min_score = min_score
        self._cached = cached
        self._cache: dict[tuple[int, int, int, float], Verdict] = {}
        # Of documents with a relevance of their own, the other parts of the score are the same.
        self._others: dict[tuple[int, int], float] = {}

    def __call__(self, chars: int, present: int, flags: int, relevance: float) -> Verdict:
        """The verdict on the facts of a message."""
        # All lengths from 1,001 characters on have the same score.
        length = min(chars, 1001)
        facts = (length, present, flags, relevance)
        verdict = self._cache.get(facts)
        if verdict is None:
            if len(self._cache) >= self._cached:
                self._cache.clear()
            others = self._others.get((length, present))
            if others is None:
                others = score_without_relevance(Facts(chars, 0, present, blank=False, relevance=0.0))
                self._others[length, present] = others
            verdict = _verdict(with_relevance(others, relevance), bool(flags), self._min_score)
            self._cache[facts] = verdict
        return verdict
