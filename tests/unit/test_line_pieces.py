"""Pieces of whole lines, which other processes read: together they have the lines of the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_producer.sources.files import line_pieces
from shardline_producer.sources.files.line_pieces import PieceCutter
from shardline_producer.sources.files.lines import Line, LineSplitter

LINES = st.sampled_from(
    [b"", b"x", b"{}", b"\r", b" ", b"y" * 40, b"y" * 20, b"y" * 20 + b"\r", b"\xef\xbb\xbfz"]
)


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> object:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(line_pieces, "_PIECE_BYTES", 24)
        yield


def lines_of(found: list[line_pieces.Piece | Line], max_bytes: int) -> list[Line]:
    lines: list[Line] = []
    for one in found:
        if isinstance(one, Line):
            lines.append(one)
        else:
            splitter = LineSplitter(max_bytes, one.number, one.offset)
            lines += [*splitter.feed(one.text), *splitter.finish()]
    return lines


@given(st.lists(LINES, max_size=14), st.integers(1, 61), st.booleans())
def test_pieces_have_the_lines_of_the_text(parts: list[bytes], size: int, last: bool) -> None:
    data = b"\n".join(parts) + (b"\n" if last else b"")
    whole = LineSplitter(20)
    expected = [*whole.feed(data), *whole.finish()]
    cutter = PieceCutter(20)
    found = [one for start in range(0, len(data), size) for one in cutter.feed(data[start : start + size])]
    found += cutter.finish()
    assert lines_of(found, 20) == expected
    # Bounded: a piece and a chunk, and less than a line.
    assert all(len(one.text) <= 24 + size + 20 for one in found if not isinstance(one, Line))


def test_a_read_continues_behind_a_line() -> None:
    data = b"".join(b"%d\n" % number * 9 for number in range(40))
    expected = list(LineSplitter(20).feed(data))
    start = expected[17]
    cutter = PieceCutter(20, start.number, start.end)
    assert lines_of([*cutter.feed(data[start.end :]), *cutter.finish()], 20) == expected[18:]
