"""Durations in messages, and the messages that have one."""

import logging
import re
from pathlib import Path

import pytest

from shardline_common.errors import StoreUnavailable
from shardline_common.runtime.clock import SystemClock
from shardline_common.runtime.durations import in_seconds, seconds_text
from shardline_common.runtime.retry import Backoff, retry_forever

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "less than 0.1 s"),
        (0.049, "less than 0.1 s"),
        (0.06, "0.1 s"),
        (0.31, "0.3 s"),
        (0.96, "1.0 s"),
        (2.0, "2 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (600.0, "600 s"),
    ],
)
def test_a_duration_is_never_shown_as_nothing(seconds: float, words: str) -> None:
    assert seconds_text(seconds) == words
    assert in_seconds(seconds) == ("now" if seconds < 0.05 else f"in {words}")


class _NoWait(SystemClock):
    async def sleep(self, seconds: float) -> None:
        """Return at once."""


@pytest.mark.parametrize(("pause", "words"), [(0.001, "trying again now"), (0.26, "trying again in 0.3 s")])
async def test_a_retry_says_when_in_words(
    pause: float, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda *_: pause)
    failures = [StoreUnavailable(f"down {pause}")]

    async def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    with caplog.at_level(logging.WARNING):
        assert await retry_forever(call, _NoWait(), "put") == "done"
    assert words in caplog.text


def test_no_other_message_prints_a_pause_by_itself() -> None:
    rooms = ("common", "producer", "consumer", "shardline")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"(again|sent|next one|failing|waiting).*(%\.[0-9]f|:\.[0-9]f\}) s\b", line)
    ]
    # The time since the last event, of which only 30 seconds and more are shown.
    assert [one for one in found if "_QUIET" not in one and "job_view.py" not in one.split(":")[0]] == []
