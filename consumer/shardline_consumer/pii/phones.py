"""Phone numbers: international ones, those of Germany by area code, and others by the words around."""

import re
from collections.abc import Iterator

from shardline_consumer.pii.area_codes import AREA_CODES, LONGEST_AREA_CODE
from shardline_consumer.pii.phone_words import CONTEXT, STRICT_CONTEXT, Before
from shardline_consumer.pii.scan import Group, Scan, Span

_TIME_BEHIND = re.compile(r" ?(?:Uhr|h\b|am\b|pm\b|%|\u20ac|Euro|EUR|Prozent|km\b|m\b|Jahre)", re.IGNORECASE)
_EXTENSION = re.compile(
    r",? ?\(?(?:ext(?:ension)?|x|Durchwahl|DW|App(?:arat)?|Nebenstelle"
    r"|Klappe)[.: ]{0,2}[0-9]{1,5}(?![0-9])\)?",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?:[0-3]?[0-9]([./-]) ?[01]?[0-9]\1 ?(?:[12][0-9])?[0-9]{2}|[12][0-9]{3}-[01][0-9]-[0-3][0-9]"
    r"|[0-2]?[0-9][:.][0-5][0-9] Uhr)"
    r"(?![0-9])"
)
_YEAR = re.compile("(?:19|20)[0-9]{2}")
_ALNUM = re.compile("[0-9A-Za-z_]")
_DECIMALS = re.compile(r",[0-9]")
_MOBILE = re.compile("01(?:5[0-9]|6[023]|7[0-9])")
# A group behind a character of these, and a letter or digit before it, is the rest of something.
_INSIDE = frozenset(".,/:\xa7_")
_AREA_MARKS = ("/", "-", ")")

# Calling codes of ITU-T E.164 with one and two digits; all others have three.
_SHORT_CODES = frozenset(
    """
    1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66
    81 82 84 86 90 91 92 93 94 95 98
    """.split()  # noqa: SIM905
)
_LONG_CODES = re.compile(
    "21[12368]|2[2-6][0-9]|29[0179]|3[578][0-9]|42[013]|50[0-9]|59[0-9]|6[789][0-9]|8[0578][0-9]|9[679][0-9]"
)
_NORTH_AMERICA = "1"
_TEN_DIGITS = frozenset({"1", "7"})
_NORTH_AMERICAN = re.compile("[2-9][0-9]{2}")
_NORTH_AMERICAN_GROUPS = (3, 3, 4)
_ITALY = "39"
_FEWEST_ABROAD, _MOST_ABROAD = 7, 13
_FEWEST_IN_CONTEXT = 6
_FEWEST_AFTER_LABEL, _MOST_DIGITS = 5, 14
_MOST_DIGITS_ABROAD = 18
_FEWEST_SUBSCRIBER, _FEWEST_AFTER_SPACE = 5, 6
_SHORTEST_NATIONAL, _LONGEST_NATIONAL = 9, 13
_LONGEST_MOBILE, _SHORTEST_MOBILE = 12, 11
_NEXT_AFTER, _NEXT_AFTER_ABROAD = 8, 10
_SERVICE = re.compile("180[1-7]?|700|800|900|137[1-9]?|32")
# The form without a true area code: `0123/456789`.
_SLASHED = (range(3, 6), range(5, 9))
# As people of Britain and Switzerland group their numbers.
_FOREIGN_GROUPS = frozenset({(5, 6), (3, 4, 4), (4, 3, 4), (3, 3, 2, 2)})


def find_phones(scan: Scan) -> Iterator[Span]:
    """The phone numbers of a text."""
    for groups in scan.runs:
        first = 0
        while first < len(groups):
            # Most other numbers have many groups, each of which could start one.
            chain = [] if scan.is_taken(groups[first].start) else _chain(scan.text, groups, first)
            count = _phone_groups(scan.text, chain) if chain else 0
            if count:
                yield _span(scan.text, chain[0].start, chain[count - 1].end)
            first += count or 1


def _may_start(text: str, groups: list[Group], first: int) -> bool:
    """Whether a phone number may start with this group. Most numbers are none, and this costs little."""
    digits, start, end = groups[first]
    before = text[max(0, start - 2) : start]
    if _ALNUM.match(before[-1:]) or (before[-1:] in _INSIDE and _ALNUM.match(before[:1])):
        return False
    if first and before[-1:] not in {" ", "("}:
        return False
    if digits[0] != "0" and "+" not in before and not _is_north_american(groups[first : first + 4]):
        return Before(text, start).is_named
    return not (digits == "0" and text.startswith(")", end))


def _chain(text: str, groups: list[Group], first: int) -> list[Group]:
    """The groups that may belong to one number that starts with the first of them."""
    start = groups[first].start
    if not _may_start(text, groups, first) or _DATE.match(text, start):
        return []
    chain: list[Group] = []
    total = 0
    enough = _NEXT_AFTER_ABROAD if text[max(0, start - 1) : start] in {"+", "("} else _NEXT_AFTER
    for group in groups[first : first + _MOST_DIGITS_ABROAD]:
        new = bool(chain) and text[group.start - 1] in " ("
        # A second number, or a date, behind this one.
        if new and total >= enough and group.digits[0] == "0" and group.digits[1:] in AREA_CODES:
            break
        if new and (_DATE.match(text, group.start) or _DECIMALS.match(text, group.end)):
            break
        total += len(group.digits)
        if total > _MOST_DIGITS_ABROAD and chain:
            break
        chain.append(group)
    return chain


def _phone_groups(text: str, chain: list[Group]) -> int:
    """How many of the groups are a phone number; 0: none are."""
    start, first = chain[0].start, chain[0].digits
    plus = _has_plus(text, start, first)
    if plus or first.startswith("00"):
        return _ends_well(text, _international(text, chain, plus=plus), chain)
    before = Before(text, start)
    if before.is_label():
        count = _ends_well(text, _longest(chain, _FEWEST_AFTER_LABEL, _MOST_DIGITS), chain)
        return 0 if count and _is_time(text, chain[:count]) else count
    if first[0] == "0":
        return _ends_well(text, _national(text, chain), chain)
    return _ends_well(text, _north_american(text, chain, before), chain)


def _has_plus(text: str, start: int, digits: str) -> bool:
    """`+49`, `+(49)`; with a space, only where it is no sum."""
    before = text[max(0, start - 2) : start]
    return before.endswith("+") or before == "+(" or (before == "+ " and digits in {"49", "43", "41"})


def _ends_well(text: str, count: int, chain: list[Group]) -> int:
    if not count:
        return 0
    end = chain[count - 1].end
    letter = _ALNUM.match(text, end) and not _EXTENSION.match(text, end)
    return 0 if letter or _DECIMALS.match(text, end) else count


def _longest(chain: list[Group], fewest: int, most: int) -> int:
    """The largest number of groups with at most so many digits."""
    total, best = 0, 0
    for count, group in enumerate(chain, 1):
        total += len(group.digits)
        if fewest <= total <= most:
            best = count
    return best


def _is_time(text: str, chain: list[Group]) -> bool:
    """`Tel. 8.00 - 17.00 Uhr`, a year, or a sum."""
    between = text[chain[0].start : chain[-1].end]
    return bool(_TIME_BEHIND.match(text, chain[-1].end)) or bool(
        re.fullmatch(r"[12][0-9]{3} ?[-/] ?[12]?[0-9]{2,3}", between)
    )


def _international(text: str, chain: list[Group], *, plus: bool) -> int:
    best, digits = 0, ""
    for count, group in enumerate(chain, 1):
        trunk = (
            group.digits == "0" and text[group.start - 1] == "(" and text[group.end : group.end + 1] == ")"
        )
        digits += "" if trunk else group.digits
        if _is_international(digits if plus else digits[2:]):
            best = count
    if plus or not best:
        return best
    if chain[0].digits[:4] in {"0049", "0043", "0041"} or CONTEXT.of(
        text, chain[0].start, chain[best - 1].end
    ):
        return best
    # `00` also starts other numbers: the code must stand by itself.
    return best if best > 1 and chain[0].digits[2:] in _SHORT_CODES else 0


def _is_international(digits: str) -> bool:
    length = next((size for size in (1, 2) if digits[:size] in _SHORT_CODES), 0)
    if not length and not _LONG_CODES.match(digits):
        return False
    code, national = digits[: length or 3], digits[length or 3 :]
    if code in _TEN_DIGITS:
        return len(national) == 10 and _NORTH_AMERICAN.match(national) is not None  # noqa: PLR2004
    if code != _ITALY and national.startswith("0"):
        # Germans write the 0 of their area code behind the code of the country too.
        national = national[1:] if code in {"49", "43", "41", "44", "31", "32", "33"} else ""
    if national.startswith("00"):
        return False
    fewest = _FEWEST_IN_CONTEXT if code == "49" else _FEWEST_ABROAD
    return fewest <= len(national) <= _MOST_ABROAD and len(code) + len(national) <= 15  # noqa: PLR2004


def _national(text: str, chain: list[Group]) -> int:
    """A number with the 0 of its area code."""
    count = _longest(chain, _FEWEST_IN_CONTEXT + 1, _LONGEST_NATIONAL)
    if not count or _is_time(text, chain[:count]):
        return 0
    context = (CONTEXT if count > 1 else STRICT_CONTEXT).of(text, chain[0].start, chain[count - 1].end)
    if context is not None:
        # Keys of municipalities have eight digits, often in a table with words for calls in names of places.
        short = count == 1 and len(chain[0].digits) < _SHORTEST_NATIONAL
        return count if context and not short else 0
    if _MOBILE.match("".join(group.digits for group in chain[:2])):
        count = _longest(chain, _SHORTEST_MOBILE, _LONGEST_MOBILE)
        return count if count and _is_mobile(text, chain[:count]) else 0
    return count if _has_area_code(text, chain[:count]) else 0


def _is_mobile(text: str, chain: list[Group]) -> bool:
    """Groups of two from the start are codes of goods and waste."""
    return len(chain[0].digits) > 2 or text[chain[0].end] in "/-("  # noqa: PLR2004


def _has_area_code(text: str, chain: list[Group]) -> bool:
    """The area code ends where a group ends, and enough digits follow for the mark that stands there."""
    total = sum(len(group.digits) for group in chain)
    if tuple(len(group.digits) for group in chain) in _FOREIGN_GROUPS or _is_slashed(text, chain):
        return True
    code = ""
    for place, group in enumerate(chain[:-1]):
        code += group.digits
        if len(code) > LONGEST_AREA_CODE + 1:
            return False
        between = text[group.end : chain[place + 1].start]
        marked = any(mark in between for mark in _AREA_MARKS)
        if (code[1:] not in AREA_CODES and not _SERVICE.fullmatch(code, 1)) or (place and not marked):
            continue
        rest = chain[place + 1 :]
        digits = total - len(code)
        if marked:
            return digits >= _FEWEST_SUBSCRIBER and not _YEAR.fullmatch(rest[0].digits)
        pairs = all(len(one.digits) <= 2 for one in rest)  # noqa: PLR2004
        return digits >= _FEWEST_AFTER_SPACE and total >= _SHORTEST_NATIONAL and not pairs
    return False


def _is_slashed(text: str, chain: list[Group]) -> bool:
    own = chain[0].digits
    if len(chain) != 2 or own.startswith("00") or text[chain[0].end : chain[1].start].strip() != "/":  # noqa: PLR2004
        return False
    return all(len(group.digits) in lengths for group, lengths in zip(chain, _SLASHED, strict=True))


def _north_american(text: str, chain: list[Group], before: Before) -> int:
    """`(212) 555-0100`, `212-555-0100`; with spaces only, or any other number, by words around."""
    leading = int(chain[0].digits == _NORTH_AMERICA)
    if _is_north_american(chain):
        own = chain[leading : leading + 3]
        between = text[own[0].end : own[1].start]
        last = text[own[1].end : own[2].start]
        if last in {"-", "."} and (")" in between or between == last):
            # CAS numbers and prices have other groups, other numbers of this form have names.
            return 0 if CONTEXT.of(text, chain[0].start, own[2].end) is False else leading + 3
    count = _longest(chain, _FEWEST_ABROAD, _LONGEST_NATIONAL)
    if not count or not before.is_near() or not CONTEXT.of(text, chain[0].start, chain[count - 1].end):
        return 0
    return 0 if _is_time(text, chain[:count]) else count


def _is_north_american(groups: list[Group]) -> bool:
    own = groups[int(groups[0].digits == _NORTH_AMERICA) :][:3]
    lengths = tuple(len(group.digits) for group in own)
    return lengths == _NORTH_AMERICAN_GROUPS and _NORTH_AMERICAN.match(own[0].digits) is not None


def _span(text: str, start: int, end: int) -> Span:
    """The number with its plus, its bracket and its extension."""
    for opening in ("+", "(", "+ "):
        if (
            text.startswith(opening, start - len(opening))
            and start >= len(opening)
            and (opening != "(" or ")" in text[start:end])
        ):
            start -= len(opening)
    extension = _EXTENSION.match(text, end)
    return start, extension.end() if extension else end
