"""Secrets are replaced; prose stays readable."""

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.http.client_faults import words
from shardline_common.runtime.masking import MASK, Masker
from shardline_common.settings.load import load_settings
from shardline_common.telemetry.logs import log_fields, log_formatter

PROSE = (
    "s3://y-bucket at http://127.0.0.1:9000 cannot serve "
    "(put y-laws/manifest.json: AccessDenied: You may not); "
    "try it yourself, at 10:35, with 12 keys; the secret is yours"
)


@pytest.mark.parametrize(
    "secret", ["y", "e", "s3", "Access", "7", ".", "yourse", "\\", "(", "0", "is", "you"]
)
def test_a_short_secret_is_not_replaced_within_prose(secret: str) -> None:
    assert Masker([secret]).mask(PROSE) == PROSE


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        'the key "{}" was refused',
        "KeyError: '{}'",
        "set `{}`",
        "AWS_SECRET_ACCESS_KEY={}",
        "secret={}, user=me",
        "password: {}",
        "Password: {}.",
        "Authorization: Bearer {}",
        "postgres://me:{}@host:5432/db",
        "http://host/{}/x?token={}&a=1",
        '{{"token":"{}","n":1}}',
        '{{"token": "{}"}}',
        "api_key={}",
    ],
)
@pytest.mark.parametrize("secret", ["y", "no", "p@ss", "a'b", "geheim1"])
def test_a_short_secret_is_replaced_where_it_stands_as_a_value(text: str, secret: str) -> None:
    shown = (
        secret
        if "'" not in text and "://" not in text
        else {"p@ss": "p%40ss", "a'b": "a%27b"}.get(secret, secret)
    )
    assert Masker([secret]).mask(text.format(shown, shown)) == text.format(MASK, MASK)


@given(st.text(min_size=8, max_size=20), st.text(max_size=30), st.text(max_size=30))
def test_a_long_secret_is_replaced_everywhere(secret: str, before: str, after: str) -> None:
    assert secret not in Masker([secret]).mask(before + secret + after).replace(MASK, "\0")


def test_logs_and_errors_follow_the_same_rule() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log_formatter("json", ("y",), stream))
    logger = logging.getLogger("tests.masking")
    logger.propagate = False
    logger.addHandler(handler)
    logger.warning("try %s", "every key", extra=log_fields(value="y", url="http://a:y@b"))
    line = json.loads(stream.getvalue())
    assert (line["event"], line["value"], line["url"]) == ("try every key", MASK, f"http://a:{MASK}@b")
    assert words("why: the key 'y' is no key", ("y",)) == f"why: the key '{MASK}' is no key"


def test_a_short_secret_is_warned_of_by_its_setting() -> None:
    found = load_settings(environ={"AWS_SECRET_ACCESS_KEY": "yz1", "POSTGRES_PASSWORD": "long enough"})
    (warning,) = found.short_secrets
    assert warning.startswith("AWS_SECRET_ACCESS_KEY has fewer than 8 characters")
    assert "yz1" not in warning
