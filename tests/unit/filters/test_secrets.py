"""The filter `secrets`. Examples are put together here: no scanner takes them for secrets that work."""

import random
import string
from base64 import urlsafe_b64encode

import pytest

from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.secrets import FILTER, Secrets

_RANDOM = random.Random(21)


def _any(length: int, characters: str = string.ascii_letters + string.digits) -> str:
    return "".join(_RANDOM.choices(characters, k=length))


def _base64(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase
JWT = ".".join([_base64('{"alg":"HS256"}'), _base64('{"sub":"1234567890"}'), _any(43)])
TRUE = [
    ("private_key", "-----BEGIN RSA PRIVATE" + " KEY-----\n" + _any(64) + "\n" + _any(64)),
    ("private_key", "-----BEGIN OPENSSH PRIVATE" + " KEY-----\\n" + _any(64)),
    ("private_key", "-----BEGIN PGP PRIVATE" + " KEY BLOCK-----\nVersion: GnuPG v2\n\n" + _any(64)),
    ("aws", "AK" + "IA" + _any(16, UPPER)),
    ("aws", "key=" + "AS" + "IA" + _any(16, UPPER) + ";"),
    ("github", "gh" + "p_" + _any(36)),
    ("github", "github" + "_pat_" + _any(22) + "_" + _any(59)),
    ("gitlab", "gl" + "pat-" + _any(20)),
    ("slack", "xo" + "xb-" + _any(12, string.digits) + "-" + _any(12, string.digits) + "-" + _any(24)),
    (
        "slack",
        "https://hooks.slack" + ".com/services/T" + _any(8, UPPER) + "/B" + _any(8, UPPER) + "/" + _any(24),
    ),
    ("google", "AI" + "za" + _any(35)),
    ("google", "GOC" + "SPX-" + _any(28)),
    ("stripe", "sk" + "_live_" + _any(24)),
    ("stripe", "wh" + "sec_" + _any(32)),
    ("openai", "sk" + "-" + _any(48)),
    ("openai", "sk" + "-proj-" + _any(120)),
    ("openai", "sk" + "-ant-api03-" + _any(95)),
    ("other_service", "h" + "f_" + _any(34, string.ascii_letters)),
    ("other_service", "np" + "m_" + _any(36)),
    ("other_service", "SG" + "." + _any(22) + "." + _any(43)),
    ("other_service", _any(9, "123456789") + ":A" + "A" + _any(33)),
    ("jwt", f"Authorization: Bearer {JWT}"),
    ("url_password", "postgres://app:" + _any(12) + "@db.example.org:5432/app"),
    ("url_password", "see https://max:geheim9@host.example/pfad"),
    ("assignment", f'API_KEY = "{_any(32)}"'),
    ("assignment", f"client_secret: '{_any(24)}'"),
    ("assignment", f"export DB_PASSWORD={_any(20)}"),
    ("assignment", f'"accessKey": "{_any(40, HEX)}"'),
]
FALSE = [
    "-----BEGIN RSA PRIVATE" + " KEY----- is the first line of such a file",
    "-----BEGIN CERTIFICATE-----\n" + _any(64),
    "AKIA is how these keys start; AKIASHORT does not",
    "the prefix ghp_ is followed by 36 characters",
    "glpat-<your token>",
    "xoxb-your-token",
    "sk-learn and sk-" + "a" * 10,
    "eyJ is how a token starts",
    "eyJhello12345.eyJworld12345." + _any(20),
    ".".join([_base64('{"typ":"JWT","kid":1}'), _base64('{"sub":"1234567890"}'), _any(43)]),
    "https://user:password@host.example/",
    "http://localhost:8080/@user",
    "https://example.org/a:b@c",
    "postgres://app:${DB_PASSWORD}@db/app",
    'api_key = "your-api-key-goes-here-1"',
    "password = os.environ['DATABASE_PASSWORD_1']",
    "token: aaaaaaaaaaaaaaaaaaaaaaa1",
    "secret: Bundesministerium",
    f"commit: {_any(40, HEX)}",
    "§ 5 Abs. 1: Datenschutzgrundverordnung, Artikel=2016/679/EU/Verordnung",
    "Der Schlüssel: 12345678901234567890",
    "Passwort: bitte beim Administrator anfragen",
]


def _reasons(text: str, parameters: Secrets | None = None) -> list[str]:
    facts = TextFacts(text, {})
    rules = FILTER.rules(parameters or Secrets(), {})
    return [rule.name for rule in rules if rule.most is not None and rule.measure(facts) > rule.most]


@pytest.mark.parametrize(("kind", "text"), TRUE)
def test_secrets_are_found_by_their_kind(kind: str, text: str) -> None:
    assert kind in _reasons(f"Vorher {text} nachher")
    assert kind in _reasons(text)


@pytest.mark.parametrize("text", FALSE)
def test_what_looks_like_a_secret_passes(text: str) -> None:
    assert not _reasons(text)


def test_only_the_kinds_of_the_job_are_looked_for() -> None:
    text = "\n".join(text for _, text in TRUE)
    assert _reasons(text, Secrets(kinds=["jwt", "aws"])) == ["aws", "jwt"]


def test_the_entropy_of_a_value_has_a_bound() -> None:
    text = "token=" + "ab1" * 8
    assert not _reasons(text)
    assert _reasons(text, Secrets(min_entropy=1.5)) == ["assignment"]


@pytest.mark.parametrize(("kind", "text"), TRUE)
def test_the_part_that_is_the_secret_is_shown(kind: str, text: str) -> None:
    rule = next(rule for rule in FILTER.rules(Secrets(), {}) if rule.name == kind)
    assert rule.find is not None
    part = rule.find(TextFacts("§ 1 " + text, {}))
    assert part is not None
    assert 4 <= part[0] < part[1] <= len(text) + 4


@pytest.mark.parametrize(
    "piece", ["=", ":", "://a:", "=a1", "eyJa.", "-----BEGIN ", "a1", "sk-", "xoxb-1", "token="]
)
def test_long_texts_are_read(piece: str) -> None:
    assert not _reasons(piece * (200_000 // len(piece)))
