"""The work grows with the length of a text, whatever stands in it."""

import sys
from types import FrameType
from typing import Any

import pytest

from shardline_consumer.pii import find

PIECES = (
    "1",
    "1 ",
    "1.",
    "0",
    "@",
    "a@",
    ":",
    "12:",
    " ",
    "(at)",
    " at a dot ",
    "4111 ",
    "0171 ",
    "A1",
    "+49 ",
    "(",
    "\xad",
)


def _steps(text: str) -> int:
    """How many lines of Python run: the same on each machine."""
    steps = 0

    def count(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps
        steps += event == "line"
        return count

    sys.settrace(count)
    try:
        find(text)
    finally:
        sys.settrace(None)
    return steps


@pytest.mark.parametrize("piece", PIECES)
def test_twice_the_text_takes_twice_the_steps(piece: str) -> None:
    short, long = (_steps(piece * (size // len(piece))) for size in (2_000, 4_000))
    assert long <= 2.2 * short + 500


# A regular expression counts as one step: a quadratic one would not end before the limit of a test.
@pytest.mark.parametrize("piece", ["1", "@", ":", " ", "a.", "@" + "a-" * 100])
def test_a_megabyte_of_the_same_is_read(piece: str) -> None:
    find(piece * (1_000_000 // len(piece)))
