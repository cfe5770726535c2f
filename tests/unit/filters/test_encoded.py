"""The filter `encoded`."""

import base64
from hashlib import sha256, sha512

import pytest

from shardline_consumer.filters.encoded import FILTER
from tests.unit.filters.judged import found, reason, value
from tests.unit.filters.texts import ARTICLE_DE, BASE64, LAW

BYTES = b"".join(sha256(bytes([number])).digest() for number in range(20))
DUMP = " ".join(f"{byte:02x}" for byte in BYTES)
VALUES = [
    ("base64", base64.b64encode(BYTES).decode(), 1),
    ("base64", base64.urlsafe_b64encode(BYTES).decode(), 1),
    ("base64", "Grundstücksverkehrsgenehmigungszuständigkeitsübertragungsverordnung", 0),
    ("base64", "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft", 0),
    ("base64", "https://www.example.org/gesetze/buergerliches-gesetzbuch/abschnitt-3/titel-5/index", 0),
    ("base64", "x" * 200, 0),
    ("hex", sha512(b"").hexdigest(), 1),
    ("hex", DUMP, 1),
    ("hex", "12 34 56 78 90 " * 10, 0),
    ("hex", "1" * 60, 0),
    ("hex", r"\xde\xad\xbe\xef" * 4, 1),
    ("percent", "%C3%A4%C3%B6%C3%BC", 1),
    ("percent", "100 % von 50 %", 0),
]
VERDICTS = [
    (LAW, None),
    (ARTICLE_DE, None),
    (BASE64, "base64"),
    (f"Der Hash ist {sha256(b'').hexdigest()}." + ARTICLE_DE * 2, None),
    ("Auszug des Speichers:\n" + DUMP, "hex"),
    ("name=M%C3%A4%C3%B6%C3%BC%C3%9F und mehr", "percent"),
]


@pytest.mark.parametrize(("rule", "text", "expected"), VALUES)
def test_runs_of_encoded_bytes_are_found_and_words_are_not(rule: str, text: str, expected: float) -> None:
    assert value(FILTER, rule, text) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("text", "expected"), VERDICTS)
def test_a_text_with_many_encoded_bytes_is_dropped(text: str, expected: str | None) -> None:
    assert reason(FILTER, text) == expected


def test_a_reader_is_shown_the_run() -> None:
    run = base64.b64encode(BYTES[:48]).decode()
    assert found(FILTER, "base64", f"das Bild {run} hier") == run
    assert found(FILTER, "hex", f"der Hash {sha256(b'').hexdigest()}.") == sha256(b"").hexdigest()
    assert found(FILTER, "percent", "a%C3%A4%C3%B6%C3%BCb") == "%C3%A4%C3%B6%C3%BC"
