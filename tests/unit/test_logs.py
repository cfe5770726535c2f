"""A record becomes a line: its fields, its masks, and what is held back."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from shardline_common.errors import BrokerUnavailable
from shardline_common.settings.load import Settings, load_settings
from shardline_common.telemetry.logs import RateLimitFilter, log_context, log_fields, log_formatter

Lines = Callable[[], list[dict[str, Any]]]
HIDDEN = 'p"@ß\\geheim'


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("tests.logs")
    found.propagate = False
    yield found
    found.handlers.clear()
    found.filters.clear()


def written(logger: logging.Logger, style: str, *secrets: str) -> io.StringIO:
    """What the logger writes from now on."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log_formatter(style, secrets, stream))
    logger.addHandler(handler)
    return stream


def refuse(message: str, hint: str | None = None) -> None:
    raise BrokerUnavailable(message, hint=hint)


def only(stream: io.StringIO) -> dict[str, Any]:
    """The one line that was written as JSON."""
    assert stream.getvalue().count("\n") == 1
    return dict(json.loads(stream.getvalue()))


def test_a_line_tells_when_where_what_and_what_to_do(logger: logging.Logger) -> None:
    stream = written(logger, "auto")
    error = BrokerUnavailable("Kafka does not answer", hint="is it up?")
    with log_context(partition=0, attempt=2), log_context(job="laws"):
        logger.warning("%s; joining again", error, extra=log_fields(waited=1.5))
    line = only(stream)
    expected = {
        "time": line["time"],
        "level": "warning",
        "logger": "tests.logs",
        "event": "Kafka does not answer; joining again",
        "job": "laws",
        "attempt": 2,
        "partition": 0,
        "waited": 1.5,
        "hint": "is it up?",
    }
    assert list(line.items()) == list(expected.items())
    assert datetime.fromisoformat(line["time"]).tzinfo is UTC


def test_a_traceback_is_one_field(logger: logging.Logger) -> None:
    stream = written(logger, "json")
    try:
        refuse("away")
    except BrokerUnavailable:
        logger.exception("a bug in Shardline")
    exception = only(stream)["exception"]
    assert exception.startswith("Traceback")
    assert exception.endswith("BrokerUnavailable: away")


async def test_the_context_is_that_of_the_task_and_of_tasks_it_starts(logger: logging.Logger) -> None:
    stream = written(logger, "json")

    async def work(job: str) -> None:
        with log_context(job=job):
            await asyncio.sleep(0)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.to_thread(logger.warning, "%s", job))

    await asyncio.gather(work("one"), work("two"))
    logger.warning("outside")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["event"]: line.get("job") for line in lines} == {"one": "one", "two": "two", "outside": None}


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_form_of_a_secret_reaches_a_line(logger: logging.Logger, style: str) -> None:
    stream = written(logger, style, HIDDEN, "", "short")
    with log_context(job=f"job-{HIDDEN}"):
        try:
            refuse(f"refused: {HIDDEN!r}", hint=f"not with {HIDDEN}")
        except BrokerUnavailable as error:
            fields = log_fields(
                url="https://user:p%22%40%C3%9F%5Cgeheim@host", nested={"list": [HIDDEN]}, count=7
            )
            logger.error("%s, and short", error, extra=fields, exc_info=True)  # noqa: G201 - its hint counts
    text = stream.getvalue()
    assert text.count("********") == 7
    for part in ("ß", "geheim", "short", "%C3"):
        assert part not in text
    assert "7" in text


@pytest.mark.parametrize(("level", "shown"), [("INFO", False), ("DEBUG", True)])
def test_clients_are_not_quoted_before_shardline_speaks(level: str, shown: bool) -> None:
    code = (
        "import logging, warnings, sys; from shardline_common.telemetry.logs import log_to_stderr\n"
        "log_to_stderr(sys.argv[1])\n"
        "for name in ('aiokafka.producer.sender', 'botocore.credentials', 'neo4j.pool', 'asyncpg.pool'):\n"
        "    logging.getLogger(name).error('raw line')\n"
        "warnings.warn('raw line', UserWarning)\n"
        "logging.getLogger('asyncio').error('a task failed')"
    )
    done = subprocess.run([sys.executable, "-c", code, level], check=True, capture_output=True, text=True)
    assert ("raw line" in done.stderr) is shown
    assert "a task failed" in done.stderr


def test_every_secret_setting_is_masked() -> None:
    names = [name for name, info in Settings.model_fields.items() if "SecretStr" in str(info.annotation)]
    assert "aws_secret_access_key" in names
    settings = Settings.model_validate({name: SecretStr(f"secret of {name}") for name in names})
    assert sorted(settings.secrets()) == sorted(f"secret of {name}" for name in names)


def test_the_console_has_columns_and_keeps_control_characters_out(logger: logging.Logger) -> None:
    stream = written(logger, "console")
    with log_context(job="laws"):
        logger.warning("GET /\x1b[31m\n2026-11-26 forged")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert "[warning  ]" in text
    assert "job=laws" in text


def test_what_is_no_unicode_is_logged_all_the_same() -> None:
    code = (
        "import logging; from shardline_common.telemetry.logs import log_to_stderr; log_to_stderr('INFO')\n"
        "logging.getLogger('x').warning('Maß \\udcff %s', b'\\xff')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert json.loads(done.stderr)["event"] == "Maß \udcff b'\\xff'"


def test_a_repeated_message_is_held_back_and_counted(logger: logging.Logger) -> None:
    stream, now = written(logger, "json"), 100.0
    logger.addFilter(RateLimitFilter(10.0, lambda: now))
    for _ in range(101):
        logger.error("Failed fetch messages from %s", 1)
    logger.error("another message")
    now = 110.0
    for node in (2, 3):
        logger.error("Failed fetch messages from %s", node)
    now = 120.0
    logger.error("another message")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line.get("repeated")) for line in lines] == [
        ("Failed fetch messages from 1", None),
        ("another message", None),
        ("Failed fetch messages from 2", 100),
        ("another message", None),
    ]


def test_the_form_of_logs_is_a_setting() -> None:
    assert load_settings(environ={"SHARDLINE_LOG_FORMAT": "console"}).settings.log_format == "console"
