"""German numbers of people: tax id, social insurance number, ID card and passport."""

import re
from collections.abc import Iterator

from shardline_consumer.pii import checksums
from shardline_consumer.pii.scan import OTHER_NUMBERS, Context, Group, Scan, Span

_ALNUM = re.compile("[A-Za-z0-9]")
_TAX = Context(
    r"Steuer-?\s?ID|Steuer-?\s?Ident|Identifikationsn|\bIdNr|\bID-Nr|\bTIN\b|\bTax\b"
    r"|steuerlich\w* Ident|\bStID",
    OTHER_NUMBERS,
)
_TAX_DIGITS = 11
_TAX_GROUPS = frozenset({(11,), (2, 3, 3, 3)})

_PENSION = re.compile(
    r"[0-9](?<![0-9A-Za-z][0-9])(?:[ ./-]?[0-9]){7}[ ./-]?[A-Za-z][ ./-]?[0-9](?:[ .-]?[0-9]){2}"
    r"(?![0-9A-Za-z])"
)
_SEPARATORS = re.compile("[^0-9A-Za-z]+")

# The letters of serial numbers are those that nobody takes for a digit or for a word.
_ID_LETTERS = "CFGHJ-NPRTV-Zcfghj-nprtv-z"
_ID_NUMBER = re.compile(
    f"(?<![0-9A-Za-z-])[{_ID_LETTERS}](?: ?[0-9{_ID_LETTERS}]){{8}}(?: ?[0-9])?[dD]?(?![0-9A-Za-z-])"
)
_DIGIT_BEHIND_LETTER = re.compile(f"[0-9](?<=[{_ID_LETTERS}][0-9])")
_ID_WORDS = (
    r"Ausweis|Reisepa(?:ss|\xdf)|\bPa(?:ss|\xdf)(?:-?n|\b)|Passport|\bPerso\b|ID[- ]card|identity"
    r"|identification card|\bID-Karte"
    r"|\beID\b|Dokumentenn|document n|\bID ?(?:no|num|nr)"
)
_ID_CONTEXT = Context(_ID_WORDS, OTHER_NUMBERS, 64)
_WITHOUT_CHECK, _WITH_CHECK = 9, 10
_SURE_LETTERS = 3


def find_tax_ids(scan: Scan) -> Iterator[Span]:
    """Tax ids by digit rule and check digit. Those that start with 0 are for tests: only after their name."""
    for groups in scan.runs:
        first = 0
        while first < len(groups):
            taken = scan.is_taken(groups[first].start)
            count = 0 if taken else _tax_groups(scan.text, groups[first : first + _TAX_DIGITS])
            if count:
                yield groups[first].start, groups[first + count - 1].end
            first += count or 1


def _tax_groups(text: str, groups: list[Group]) -> int:
    """How many of the groups are a tax id; 0: none are."""
    start = groups[0].start
    if start and (_ALNUM.match(text, start - 1) or text[start - 1] in "+_"):
        return 0
    digits, count = "", 0
    while len(digits) < _TAX_DIGITS and count < len(groups):
        digits += groups[count].digits
        count += 1
    if (
        len(digits) != _TAX_DIGITS
        or not checksums.tax_id(digits)
        or _ALNUM.match(text, groups[count - 1].end)
    ):
        return 0
    context = _TAX.of(text, start, groups[count - 1].end)
    usual = tuple(len(group.digits) for group in groups[:count]) in _TAX_GROUPS and digits[0] != "0"
    return count if context or (context is None and usual) else 0


def find_social_insurance(scan: Scan) -> Iterator[Span]:
    """Numbers of the German pension insurance by date of birth and check digit."""
    if not scan.runs:
        return
    for found in _PENSION.finditer(scan.text):
        if checksums.social_insurance(_SEPARATORS.sub("", found[0]).upper()):
            yield found.span()


def find_id_cards(scan: Scan) -> Iterator[Span]:
    """Serial numbers of ID cards and passports: by check digit and letters, or by words around."""
    text = scan.text
    for groups in scan.runs:
        for group in groups:
            if (
                len(group.digits) == _WITH_CHECK
                and _stands_alone(text, group)
                and _is_id(text, group.start, group.end)
            ):
                yield group.start, group.end
    behind = 0
    for place in _DIGIT_BEHIND_LETTER.finditer(text):
        for start in range(max(behind, place.start() - _WITH_CHECK), place.start()):
            end = _id_end(text, start)
            if end:
                yield start, end
                behind = end
                break


def _stands_alone(text: str, group: Group) -> bool:
    """Whether no letter touches the digits, but for the D of Germany in the machine-readable line."""
    before = text[group.start - 1 : group.start] if group.start else ""
    return not _ALNUM.match(before) and not _ALNUM.match(text[group.end : group.end + 1].replace("D", ""))


def _id_end(text: str, start: int) -> int | None:
    """Where the number that starts here ends; None: there is none."""
    found = _ID_NUMBER.match(text, start)
    if found is None:
        return None
    end = found.end() - found[0].endswith(("D", "d"))
    if _is_id(text, start, end):
        return end
    # A digit of the next word: `L01X00T47 2 Jahre`.
    return end - 2 if text[end - 2] == " " and _is_id(text, start, end - 2) else None


def _is_id(text: str, start: int, end: int) -> bool:
    number = _SEPARATORS.sub("", text[start:end]).upper()
    letters = sum(not one.isdigit() for one in number)
    if len(number) == _WITH_CHECK and not (number[-1].isdigit() and checksums.machine_readable(number)):
        return False
    if len(number) not in {_WITHOUT_CHECK, _WITH_CHECK} or letters == len(number):
        return False
    context = _ID_CONTEXT.of(text, start, end)
    if text.startswith(("<", "D<"), end):
        return True
    sure = len(number) == _WITH_CHECK and letters >= _SURE_LETTERS and text[start].isupper()
    return bool(context) or (context is None and sure)
