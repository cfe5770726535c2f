"""The filter `damage`."""

import pytest

from shardline_consumer.filters.damage import FILTER
from tests.unit.filters import texts
from tests.unit.filters.judged import found, reason, value

VALUES = [
    ("mojibake", "fÃ¼r alle", 1),
    ("mojibake", "Prüfung â€žsofortâ€œ", 3),
    ("mojibake", "Â§ 5", 1),
    ("mojibake", "f├╝r", 2),
    ("mojibake", "São Paulo, Ângela, Ñandú, âge, ÄÖÜ", 0),
    ("replaced", "f\ufffdr alle", 0.5),
    ("lost", "f?r M?nchen", 1),
    ("lost", "Warum? Darum. Wirklich?", 0),
    ("lost", "siehe https://example.org/a?b=1", 0),
    ("controls", "a\x00b\x1f\ue000\x85\n\t", 3 / 8),
    ("single_letters", "G e s e t z 1 2", 1),
    ("single_letters", "a) Gesetz b) Recht", 0.5),
    ("single_letters", "12", float("nan")),
]
VERDICTS = [
    (texts.LAW, None),
    (texts.ARTICLE_DE, None),
    (texts.ARTICLE_EN, None),
    (texts.MOJIBAKE, "controls"),
    (texts.MOJIBAKE_CP1252, "mojibake"),
    (texts.MOJIBAKE_CP850, "mojibake"),
    (texts.REPLACED, "replaced"),
    (texts.LOST, "lost"),
    ("\x01\x02 PK\x03\x04 Inhalt", "controls"),
    ("D i e s e r  T e x t  i s t  g e s p e r r t", "single_letters"),
]


@pytest.mark.parametrize(("rule", "text", "expected"), VALUES)
def test_damage_is_counted_and_foreign_letters_are_none(rule: str, text: str, expected: float) -> None:
    assert value(FILTER, rule, text) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("text", "expected"), VERDICTS)
def test_a_damaged_text_is_dropped(text: str, expected: str | None) -> None:
    assert reason(FILTER, text) == expected


def test_a_reader_is_shown_the_place() -> None:
    assert found(FILTER, "mojibake", "das fÃ¼r alle") == "Ã¼"
    assert found(FILTER, "lost", "das f?r alle") == "f?r"
    assert found(FILTER, "controls", "a\x00b") == "\x00"
    assert found(FILTER, "single_letters", "das G e s e t z hier") == "G e s e t z"
