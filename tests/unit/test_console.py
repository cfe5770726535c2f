"""Messages on stderr: as they are, on a terminal and elsewhere."""

import pytest

from shardline.cli.console import print_error, print_message
from shardline_common.errors import UsageError

TEXT = "a:smile:b [red]c[/] \x07d\re " + "long " * 60


@pytest.mark.parametrize("forced", [False, True])
def test_a_message_is_one_line_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, forced: bool
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1" if forced else "")
    print_message(TEXT)
    assert capsys.readouterr().err == TEXT.replace("\x07", "").replace("\r", "") + "\n"


def test_an_error_has_its_hint_in_a_second_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    print_error(UsageError("no :key: here", hint="try [another]"))
    plain = capsys.readouterr().err
    assert plain == "error: no :key: here\n  try: try [another]\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_error(UsageError("no :key: here", hint="try [another]"))
    drawn = capsys.readouterr().err
    assert "\x1b[1;31merror:" in drawn
    assert "no :key: here" in drawn
