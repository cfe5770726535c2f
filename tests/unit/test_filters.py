"""Clara's score, against its definition written another way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.job.clara_score import clara_score
from shardline_common.job.messages import Facts
from shardline_consumer.filters.clara import Judge, Rejection, judge


@pytest.mark.parametrize(
    ("chars", "points"), [(0, 0.1), (200, 0.1), (201, 0.2), (500, 0.2), (501, 0.3), (1000, 0.3), (1001, 0.4)]
)
def test_length_steps(chars: int, points: float) -> None:
    assert clara_score(Facts(chars, 0, 0, blank=False, relevance=0.0)) == pytest.approx(points)


def test_all_parts_add_up_and_are_capped() -> None:
    assert clara_score(Facts(2000, 0, 3, blank=False, relevance=1.0)) == pytest.approx(1.0)
    assert clara_score(Facts(2000, 0, 3, blank=False, relevance=99.0)) == 1.0


def test_the_threshold_is_met_at_four_decimals() -> None:
    facts = Facts(501, 0, 2, blank=False, relevance=0.0)
    assert judge(facts, 0.5).reason is None
    assert judge(facts, 0.5001).reason is Rejection.BELOW_MIN_SCORE


def test_white_space_is_empty_whatever_the_score() -> None:
    verdict = judge(Facts(5000, 0, 3, blank=True, relevance=1.0), 0.0)
    assert verdict.reason is Rejection.EMPTY


@given(
    st.integers(0, 5000),
    st.integers(0, 3),
    st.booleans(),
    st.floats(-10, 10, allow_nan=False),
    st.floats(0, 1),
)
def test_remembered_verdicts_are_the_computed_ones(
    chars: int, present: int, blank: bool, relevance: float, min_score: float
) -> None:
    remembering = Judge(min_score)
    for _ in range(2):
        expected = judge(Facts(chars, 0, present, blank, relevance), min_score)
        assert remembering(chars, present, int(blank), relevance) == expected
        assert float(expected.text) * 10_000 == pytest.approx(expected.score)
