"""What the finders share of a text: its numbers, and the words around a number."""

import re
from functools import cached_property
from typing import NamedTuple

Span = tuple[int, int]

# At least five digits, which single spaces and marks may group. Digits and separators have no character in
# common, so the search never reads a text twice.
_SEPARATOR = r"(?: ?[-./()]{1,2} ?| )"
_RUN = re.compile(rf"[0-9](?:{_SEPARATOR}?[0-9]){{4,}}")
_GROUP = re.compile("[0-9]+")


class Group(NamedTuple):
    """Digits without a separator."""

    digits: str
    start: int
    end: int


class Scan:
    """A plain text, with what several finders ask for. Each is computed once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.is_taken = _nothing_is_taken
        """Whether another kind has taken the character at a place."""

    @cached_property
    def runs(self) -> list[list[Group]]:
        """The numbers of at least five digits, by their groups."""
        return [
            [
                Group(one[0], one.start(), one.end())
                for one in _GROUP.finditer(self.text, run.start(), run.end())
            ]
            for run in _RUN.finditer(self.text)
        ]


def _nothing_is_taken(_: int) -> bool:
    return False


class Context:
    """The words that say what a number is, and those that say that it is something else.

    Args:
        names: words for the kind, as alternatives of a regular expression.
        others: words for other numbers. The last word before a number counts.
        reach: how many characters before the number are read. Behind it, it is the rest of its part of the
            sentence: `0171 1234567 (mobil)`.
    """

    def __init__(self, names: str, others: str, reach: int = 48) -> None:
        self._words = re.compile(f"({names})|{others}", re.IGNORECASE)
        self._behind = re.compile(f"[^\\n,;.]{{0,16}}?(?:{names})", re.IGNORECASE)
        self._reach = reach

    def of(self, text: str, start: int, end: int) -> bool | None:
        """True: it is the kind, by its context. False: something else. None: nothing is said."""
        verdict = None
        for word in self._words.finditer(text, max(0, start - self._reach), start):
            verdict = word[1] is not None
        if verdict is None and self._behind.match(text, end):
            return True
        return verdict


# Names of numbers that are no personal data of any kind here.
OTHER_NUMBERS = (
    r"Rechnung|\bRe\.|Kunden-?n|Bestell|Auftrag|Vertrags?-?n|Vertragsk|Artikel-?n|Aktenz|\bA[Zz]\b"
    r"|Gesch\xe4ftsz|Vorgang"
    r"|\bISBN|\bISSN|\bEAN|\bGTIN|\bHR[AB]\b|Steuernummer|Umsatzsteuer|\bUSt|\bIMEI|Serien-?n|Sendung"
    r"|Tracking|Beleg"
    r"|Invoice|\bOrder|Customer|Ticket|\bCase\b|\bRef\b|Reference|\bVersion|Drucks|BGBl|\bSeite|Matrikel"
    r"|Mitglieds-?n|Policen|Versicherungsschein|Z\xe4hler|Chargen?-?[n:]|\bBatch|\bLot\b|\bPLZ|Postleit"
    r"|\bFlurst|Inventar|Modell"
    r"|\bSKU|\bDOI\b|\bCELEX|\bECLI|Barcode|Transaktion|Transaction|Product|Produkt|\bParagra"
    r"|\bPart n|\bCAS\b"
)
