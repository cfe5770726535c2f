"""Numbers of bank accounts (IBAN) and of payment cards."""

import re
from collections.abc import Iterator

from shardline_consumer.pii import checksums
from shardline_consumer.pii.scan import OTHER_NUMBERS, Context, Group, Scan, Span

# The lengths of the IBAN registry of SWIFT, 2026.
_LENGTHS = {
    code[:2]: int(code[2:])
    for code in [
        "AD24",
        "AE23",
        "AL28",
        "AT20",
        "AZ28",
        "BA20",
        "BE16",
        "BG22",
        "BH22",
        "BI27",
        "BR29",
        "BY28",
        "CH21",
        "CR22",
        "CY28",
        "CZ24",
        "DE22",
        "DJ27",
        "DK18",
        "DO28",
        "EE20",
        "EG29",
        "ES24",
        "FI18",
        "FK18",
        "FO18",
        "FR27",
        "GB22",
        "GE22",
        "GI23",
        "GL18",
        "GR27",
        "GT28",
        "HN30",
        "HR21",
        "HU28",
        "IE22",
        "IL23",
        "IQ23",
        "IS26",
        "IT27",
        "JO30",
        "KW30",
        "KZ20",
        "LB28",
        "LC32",
        "LI21",
        "LT20",
        "LU20",
        "LV21",
        "LY25",
        "MC27",
        "MD24",
        "ME22",
        "MK19",
        "MN20",
        "MR27",
        "MT31",
        "MU30",
        "NI28",
        "NL18",
        "NO15",
        "OM23",
        "PK24",
        "PL28",
        "PS29",
        "PT25",
        "QA29",
        "RO24",
        "RS22",
        "RU33",
        "SA24",
        "SC31",
        "SD18",
        "SE24",
        "SI19",
        "SK24",
        "SM27",
        "SO23",
        "ST25",
        "SV28",
        "TL23",
        "TN24",
        "TR26",
        "UA29",
        "VA22",
        "VG24",
        "XK20",
        "YE30",
    ]
}
_CHECK_DIGITS = re.compile(r"[0-9](?:(?<=[A-Za-z]{2}[0-9])|(?<=[A-Za-z]{2}[ .-][0-9]))[0-9]")
_REST = re.compile(r"(?:[ \n./-]?[A-Za-z0-9]){11,31}")
_ALNUM = re.compile("[A-Za-z0-9]")
_NATIONAL_DIGITS = frozenset("AT BE CZ DE DK EE ES FI HR HU IS LT NO PL PT SE SI SK".split())  # noqa: SIM905

_CARD = Context(
    r"Kredit|Karte|\bVisa|Master|American Ex|\bAmex|Diners|Discover|\bJCB|Maestro|Credit|\bCard|\bCVV"
    r"|\bCVC|g\xfcltig bis|expir",
    OTHER_NUMBERS,
)
# Issuers by the first digits, with the lengths of their numbers.
_ISSUERS = (
    (re.compile("4"), (16, 19)),
    (re.compile("5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile("3[47]"), (15,)),
    (re.compile("6011|64[4-9]|65|622"), (16, 19)),
    (re.compile("30[0-5]|3095|3[689]"), (14,)),
    (re.compile("35(?:2[89]|[3-8])"), (16,)),
)
_ISSUERS_IN_CONTEXT = (
    (re.compile("4"), (13,)),
    (re.compile("50|5[6-9]|6"), (12, 13, 14, 15, 16, 17, 18, 19)),
)
_USUAL_GROUPS = frozenset({(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)})
_FIRST_DIGITS = frozenset("23456")
_FEWEST, _MOST = 12, 19
_MOST_GROUPS = 19


def find_ibans(scan: Scan) -> Iterator[Span]:
    """IBANs by length of the country and check digits, in groups or not, in capitals or not."""
    if not scan.runs:
        return
    text = scan.text
    for check in _CHECK_DIGITS.finditer(text):
        start = check.start() - 2 - (text[check.start() - 1] in " .-")
        if start and (_ALNUM.match(text, start - 1) and text[max(0, start - 4) : start].upper() != "IBAN"):
            continue
        end = _iban_end(text, start, check.end())
        if end is not None:
            yield start, end


def _iban_end(text: str, start: int, behind: int) -> int | None:
    country = text[start : start + 2].upper()
    length = _LENGTHS.get(country)
    rest = _REST.match(text, behind)
    if length is None or rest is None:
        return None
    places = [place for place in range(rest.start(), rest.end()) if text[place] not in " \n./-"][: length - 4]
    if len(places) < length - 4 or _ALNUM.match(text, places[-1] + 1):
        return None
    own = "".join([text[place] for place in places]).upper()
    if country in _NATIONAL_DIGITS and not own.isdigit():
        return None
    return places[-1] + 1 if checksums.iban(country + text[behind - 2 : behind] + own) else None


def find_cards(scan: Scan) -> Iterator[Span]:
    """Numbers of cards by issuer, length and check digit; words decide where these say little."""
    for groups in scan.runs:
        first = 0
        while first < len(groups):
            taken = scan.is_taken(groups[first].start)
            count = (
                0 if taken else _card_groups(scan.text, groups[first : first + _MOST_GROUPS], whole=not first)
            )
            if count:
                yield groups[first].start, groups[first + count - 1].end
            first += count or 1


def _card_groups(text: str, groups: list[Group], *, whole: bool) -> int:
    """How many of the groups are the number of a card; 0: none are."""
    before = text[max(0, groups[0].start - 1) : groups[0].start]
    if groups[0].digits[0] not in _FIRST_DIGITS or (before and _ALNUM.match(before)):
        return 0
    digits = ""
    best = 0
    for count, group in enumerate(groups, 1):
        digits += group.digits
        if len(digits) > _MOST:
            break
        if len(digits) >= _FEWEST and _is_card(text, digits, groups[:count], whole=whole):
            best = count
    return best


def _is_card(text: str, digits: str, groups: list[Group], *, whole: bool) -> bool:
    start, end = groups[0].start, groups[-1].end
    if _ALNUM.match(text, end) or not checksums.luhn(digits) or digits.count(digits[0]) == len(digits):
        return False
    context = _CARD.of(text, start, end)
    usual = len(groups) == 1 or tuple(len(group.digits) for group in groups) in _USUAL_GROUPS
    issuers = _ISSUERS + _ISSUERS_IN_CONTEXT if context and whole else _ISSUERS
    if context is False or not (usual or context):
        return False
    return any(len(digits) in lengths and issuer.match(digits) for issuer, lengths in issuers)
