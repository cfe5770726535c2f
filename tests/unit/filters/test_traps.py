"""Texts that Clara's score judges wrongly, by the presets."""

import pytest

from shardline_common.curation.presets import PRESETS, PresetName
from shardline_common.curation.registry import load_filter
from tests.unit.filters import texts
from tests.unit.filters.judged import reason


def verdict(preset: PresetName, text: str) -> str | None:
    """The first filter of a preset that drops a text, with its rule."""
    for name, parameters in PRESETS[preset].items():
        if found := reason(load_filter(name), text, **parameters):
            return f"{name}.{found}"
    return None


# Preset, text, the reason.
TABLE: list[tuple[PresetName, str, str | None]] = [
    ("legal-de", texts.LAW, None),
    ("legal-de", texts.SHORT_LAW, None),
    ("legal-de", "Zu Dienstleistungen wird nicht herangezogen, wer dienstunfähig ist.", None),
    ("legal-de", "1.  einen Antrag nach § 3 Abs. 2 Nr. 4,\n\n2.  eine Bescheinigung nach § 5.", None),
    ("legal-de", "(weggefallen)", "gopher.too_short"),
    ("legal-de", "-", "gopher.too_short"),
    ("legal-de", "Der Bundesminister der Finanzen", "gopher.too_short"),
    ("legal-de", "*    *   1\n\n    *   2\n\n    *   17 000\n\n    *   0,4450\n\n" * 4, "gopher.short_words"),
    ("web-de", texts.ARTICLE_DE, None),
    ("web-de", texts.LAW, None),
    ("web-de", texts.ARTICLE_EN, "stop_words.too_few"),
    ("web-de", texts.JA, "gopher.short_words"),
    ("web-de", texts.NAVIGATION, "stop_words.too_few"),
    ("web-de", texts.NAVIGATION + texts.ARTICLE_DE, "fineweb.duplicate_chars"),
    ("web-de", texts.HTML_NAVIGATION, "symbols.symbols"),
    ("web-de", texts.BASE64, "gopher.long_words"),
    ("web-de", texts.BASE64 + texts.ARTICLE_DE * 2, "encoded.base64"),
    ("web-de", texts.MOJIBAKE, "damage.controls"),
    ("web-de", texts.MOJIBAKE_CP1252, "damage.mojibake"),
    ("web-de", texts.REPLACED, "damage.replaced"),
    ("web-de", texts.LOST, "damage.lost"),
    ("web-de", texts.DUTCH, "stop_words.too_few"),
    ("web-en", texts.ARTICLE_EN, None),
    ("web-en", texts.ARTICLE_DE, "stop_words.too_few"),
    ("strict", texts.ARTICLE_DE, None),
    ("strict", texts.ARTICLE_EN, None),
    ("strict", texts.DUTCH * 2, "language.other"),
    ("clara", texts.JA, None),
]


@pytest.mark.parametrize(("preset", "text", "expected"), TABLE)
def test_a_preset_judges_the_texts_that_a_score_of_length_misjudges(
    preset: PresetName, text: str, expected: str | None
) -> None:
    assert verdict(preset, text) == expected
