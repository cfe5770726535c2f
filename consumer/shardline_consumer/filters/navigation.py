"""Menus, lists of links and the notes around the text of a web page."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Parameters, Ratio, Share, first_line, first_match, share

# Words of menus and buttons, as `TextFacts.letter_words` has words.
_MENU_WORDS = frozenset(
    """
        startseite home impressum datenschutz datenschutzerklärung kontakt contact login logout
        anmelden abmelden registrieren passwort password warenkorb wunschliste merkzettel newsletter
        agb sitemap menü menu navigation search shop faq blog news cookies cookie akzeptieren accept
        teilen drucken facebook twitter instagram youtube linkedin whatsapp pinterest rss feed
        weiterlesen zurück download downloads privacy imprint copyright subscribe signin signup cart
        checkout wishlist account karriere careers jobs kommentare comments kommentieren kategorien
        categories sortieren
    """.encode().split()
)
# Phrases of a page, by a word that each text with one has: to look for these first costs next to nothing.
_PHRASES_BY_WORD = {
    "vorbehalten": "alle rechte vorbehalten", "reserved": "all rights reserved",
    "springen": "zum inhalt springen", "skip": "skip to (?:main )?content", "direkt": "direkt zum inhalt",
    "oben": "nach oben", "top": "back to top", "erfahren": "mehr erfahren", "weiterlesen": "weiterlesen",
    "more": "(?:read|learn|see) more", "jetzt": "jetzt (?:kaufen|bestellen|anmelden|registrieren)",
    "warenkorb": "in den warenkorb", "cart": "to cart", "klicken": "hier klicken", "click": "click here",
    "sign": "sign (?:in|up)", "log": "log (?:in|out)", "facebook": "facebook", "folgen": "folgen sie uns",
    "follow": "follow us", "newsletter": "newsletter", "impressum": "impressum",
    "datenschutz": "datenschutz", "datenschutzerklärung": "datenschutzerklärung",
    "privacy": "privacy policy", "terms": "terms of (?:use|service)",
    "cookies": "cookies", "cookie": "cookie", "javascript": "javascript",
    "kommentar": "kommentar schreiben", "comment": "leave a comment", "reply": "leave a reply",
    "drucken": "seite drucken", "powered": "powered by", "copyright": "copyright",
    "vergessen": "passwort vergessen", "forgot": "forgot (?:your )?password", "hier": "sie sind hier",
    "here": "you are here",
}  # fmt: skip
_PHRASES = re.compile("|".join(_PHRASES_BY_WORD.values()).encode())
_PHRASE_WORDS = frozenset(word.encode() for word in _PHRASES_BY_WORD)
_SEPARATORS = (b" | ", b" > ", b" :: ")
_SEPARATORS_TOO = "»›·•"  # noqa: RUF001 - links have it
_SEPARATOR = re.compile(f"(?<= )[|>{_SEPARATORS_TOO}](?= )")
# Of a Markdown link its start: to look for its end from each start would be quadratic.
_LINK = re.compile(r"https?://\S+|www\.\S+|\]\(\S")
# A sentence about a contact or a register has one or two of them.
_FEWEST_MENU_WORDS = 3
_MENU_LINE_WORDS = 4
_SHORT_LINE_WORDS = 12
_ENDS = (".", "?", "!", ":", ";", ",", "…", "“", '"', ")")


class Navigation(Parameters):
    """Bounds of what belongs to a page and not to its text."""

    max_menu_words: Share = Field(
        0.15,
        description="The largest part of words of menus and buttons, such as login; of less than three "
        "different ones, none counts.",
        examples=[0.15],
    )
    max_links: Ratio = Field(0.1, description="The most links for each word.", examples=[0.1])
    max_separators: Ratio = Field(
        0.1, description="The most separators of links (such as | or ») for each word.", examples=[0.1]
    )
    max_menu_lines: Share = Field(
        0.7,
        description=f"The largest part of lines of {_MENU_LINE_WORDS} words or less and no sign at the end.",
        examples=[0.7],
    )
    max_boilerplate_lines: Share = Field(
        0.3,
        description=f"The largest part of lines of {_SHORT_LINE_WORDS} words or less with a phrase of web "
        "pages, such as all rights reserved.",
        examples=[0.3],
    )


def _rules(bounds: Navigation, _: Mapping[str, Path]) -> Sequence[Rule]:
    return (
        Rule("links", _links, most=bounds.max_links, parameter="max_links", find=first_match(_LINK)),
        Rule(
            "separators",
            _separators,
            most=bounds.max_separators,
            parameter="max_separators",
            find=first_match(_SEPARATOR),
        ),
        Rule("menu_words", _menu_words, most=bounds.max_menu_words, parameter="max_menu_words"),
        Rule(
            "menu_lines",
            _menu_lines,
            most=bounds.max_menu_lines,
            parameter="max_menu_lines",
            find=first_line(_is_menu_line),
        ),
        Rule(
            "boilerplate_lines",
            _boilerplate_lines,
            most=bounds.max_boilerplate_lines,
            parameter="max_boilerplate_lines",
            find=first_line(_is_boilerplate),
        ),
    )


def _links(facts: TextFacts) -> float:
    found = 0
    if b"http" in facts.lower or b"www." in facts.lower or "](" in facts.text:
        found = len(_LINK.findall(facts.text))
    return share(found, len(facts.words))


def _separators(facts: TextFacts) -> float:
    found = sum([facts.utf8.count(one) for one in _SEPARATORS])
    found += sum([facts.text.count(f" {one} ") for one in _SEPARATORS_TOO if one in facts.others])
    return share(found, len(facts.words))


def _menu_words(facts: TextFacts) -> float:
    counts = facts.word_counts
    found = _MENU_WORDS & counts.keys()
    if len(found) < _FEWEST_MENU_WORDS:
        return share(0, len(facts.letter_words))
    return share(sum([counts[word] for word in found]), len(facts.letter_words))


def _menu_lines(facts: TextFacts) -> float:
    return share(sum(map(_is_menu_line, facts.full_lines)), len(facts.full_lines))


def _is_menu_line(line: str) -> bool:
    stripped = line.rstrip()
    return not stripped.endswith(_ENDS) and len(stripped.split(None, _MENU_LINE_WORDS)) <= _MENU_LINE_WORDS


def _boilerplate_lines(facts: TextFacts) -> float:
    if _PHRASE_WORDS.isdisjoint(facts.word_counts):
        return share(0, len(facts.full_lines))
    return share(sum(map(_is_boilerplate, facts.full_lines)), len(facts.full_lines))


def _is_boilerplate(line: str) -> bool:
    # A longer line is a sentence that only names the thing.
    if len(line.split(None, _SHORT_LINE_WORDS)) > _SHORT_LINE_WORDS:
        return False
    return _PHRASES.search(line.encode("utf-8", "surrogatepass").lower()) is not None


FILTER = FilterKind("navigation", 1, Navigation, _rules)
