"""The words around phone numbers, in German and English."""

import re

from shardline_consumer.pii.scan import OTHER_NUMBERS, Context

_NUMBER = r"(?:[ -]?(?:nummer|number|Nr|no)\b)?"
_NAMES = (
    rf"\b(?:Tele)?fon{_NUMBER}|\bTel\b\.?{_NUMBER}|(?:Tele)?fax{_NUMBER}|\bMobil(?!it)(?:telefon|funk"
    rf"|e)?{_NUMBER}"
    rf"|Telefon{_NUMBER}|Handy{_NUMBER}|Ruf{_NUMBER}|R\xfcckruf|anruf|\berreich|Durchwahl|Hotline"
    rf"|Whats-?App|\bSMS\b"
    rf"|telefon|Kontakt{_NUMBER}|Festnetz{_NUMBER}|\bSignal\b|\bAB:|Vorwahl"
    rf"|phone{_NUMBER}|\bcell{_NUMBER}\b|\bcall(?:s|ed|ing)?\b|\bdial|\breach|\btext me"
    rf"|contact{_NUMBER}|\bring\b|voicemail"
    r"|\b[TMF]:|\bmelde|Ansprechp|R\xfcckfrag|Kontaktier"
)
CONTEXT = Context(_NAMES, OTHER_NUMBERS)
# For digits without separators, which may be any number.
STRICT_CONTEXT = Context(
    _NAMES,
    rf"{OTHER_NUMBERS}|Nummer\b|\bNr\b|\bNo\b|number\b|\bID\b|IBAN|Kontonummer|\bBLZ|\bKN\b|Position|Code",
)
# The name of a phone number right before it: then it needs no form of its own.
_LABEL = re.compile(
    rf"(?<![a-z\xe4\xf6\xfc\xdf])(?:(?:Telefon|Fon|Tel|(?:Tele)?fax|Mobil(?:telefon|funk)?|Handy|Ruf"
    rf"|Festnetz){_NUMBER}"
    rf"|(?:(?:tele|cell)?phone|mobile|cell|fax|contact){_NUMBER}|Hotline|call|dial|ring|\u260e|\u2706"
    rf"|\U0001f4de)"
    r"[ .:=\"'>\n\t|*]{1,24}(?:(?:ist|lautet|is|us at|me at|at"
    r"|on)[ :]{1,2})?(?:\([^()\n]{1,20}\)[ :]{1,2})?[(+]?\Z",
    re.IGNORECASE,
)
_NEAR = re.compile(
    r"(?:Tel|phone|fax|call|mobil|handy|Ruf|dial|reach|SMS|erreich)[^\n.;]{0,24}\Z", re.IGNORECASE
)
_REACH = 48
# One of them stands in every label: much faster than to try the expressions.
_PARTS = (
    "tel",
    "fon",
    "fax",
    "phone",
    "ruf",
    "mobil",
    "handy",
    "cell",
    "hotline",
    "festnetz",
    "call",
    "dial",
)
_MORE_PARTS = ("reach", "ring", "sms", "reich", "contact", "\u260e", "\u2706", "\U0001f4de")


class Before:
    """What stands before a number."""

    def __init__(self, text: str, start: int) -> None:
        self._window = text[max(0, start - _REACH) : start]
        lower = self._window.lower()
        self.is_named = any(part in lower for part in _PARTS) or any(part in lower for part in _MORE_PARTS)

    def is_label(self) -> bool:
        """Whether the name of a phone number stands right before it."""
        return self.is_named and _LABEL.search(self._window) is not None

    def is_near(self) -> bool:
        """Whether such a name stands in the same part of the sentence."""
        return self.is_named and _NEAR.search(self._window) is not None
