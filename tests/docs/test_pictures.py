"""The pictures of README.md are those that `make pictures` makes."""

from xml.etree import ElementTree as ET

import pytest

from tests.docs.blocks import DOCS
from tools.pictures import recorded, terminal_picture
from tools.terminal_screen import shown_lines

DIGEST = "3b84267d77f22ffbe57df036d2f8c21bbf877e8c1c8b1ce2452c5097199d4479"
IMAGES = DOCS / "images"


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("one\r\ntwo\n", ["one", "two", ""]),
        ("old\rnew", ["new"]),
        ("0 %\r\n  read 1\r\x1b[2K\x1b[1A\x1b[2K100 %\r\n  read 2", ["100 %", "  read 2"]),
        ("\x1b[?25l\x1b[1mbold\x1b[0m\x1b[?25h", ["\x1b[1mbold\x1b[0m"]),
    ],
)
def test_a_screen_shows_what_was_written_last(written: str, lines: list[str]) -> None:
    assert shown_lines(written) == lines


def test_an_unknown_control_sequence_is_an_error() -> None:
    with pytest.raises(ValueError, match="not known"):
        shown_lines("\x1b[5C")


def test_a_recorded_command_becomes_a_picture() -> None:
    written = recorded(["sh", "-c", "test -t 1 && printf '\\033[32mgreen\\033[0m & plain\\n'"])
    picture = ET.fromstring(terminal_picture("a title", written))  # noqa: S314 - our own picture
    assert {"a\xa0title", "green"} <= {text.replace(" ", "\xa0") for text in picture.itertext()}


def test_the_terminal_shows_the_digest_of_the_demo() -> None:
    text = (IMAGES / "demo.svg").read_text(encoding="utf-8")
    assert DIGEST in text
    assert "http" not in text.replace("http://www.w3.org/", "").replace("https://www.textualize.io", "")


def test_the_page_is_a_picture() -> None:
    assert (IMAGES / "page.png").read_bytes().startswith(b"\x89PNG\r\n")
