"""Finds personal data: the kinds in the order in which they take parts of a text."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import NamedTuple

from shardline_consumer.pii.accounts import find_cards, find_ibans
from shardline_consumer.pii.emails import find_emails
from shardline_consumer.pii.german_numbers import find_id_cards, find_social_insurance, find_tax_ids
from shardline_consumer.pii.ip_addresses import find_ip_addresses
from shardline_consumer.pii.phones import find_phones
from shardline_consumer.pii.plain import plain
from shardline_consumer.pii.plates import find_plates
from shardline_consumer.pii.scan import Scan, Span

VERSION = 1
"""Raised whenever the same text may have other findings. Jobs freeze it in their plan."""


class Found(NamedTuple):
    """A part of a text that is personal data: its kind, its first character, and the one behind its last."""

    kind: str
    start: int
    end: int


# The surest kinds first: what one of them takes is nothing else.
_FINDERS: dict[str, Callable[[Scan], Iterable[Span]]] = {
    "email": find_emails,
    "iban": find_ibans,
    "social_insurance": find_social_insurance,
    "credit_card": find_cards,
    "tax_id": find_tax_ids,
    "ip": find_ip_addresses,
    "id_card": find_id_cards,
    "phone": find_phones,
    "licence_plate": find_plates,
}

KINDS = tuple(_FINDERS)
"""The kinds, as jobs name them."""


def find(text: str, kinds: Collection[str] | None = None) -> list[Found]:
    """The personal data of a text in its order, without overlaps.

    Args:
        text: any text.
        kinds: the kinds to look for; None: all. A kind has the same findings whatever else is asked for: a
            part of an IBAN is no phone number, even if only phone numbers are.
    """
    wanted = frozenset(KINDS if kinds is None else kinds)
    clean = plain(text)
    scan = Scan(clean.text)
    taken: list[Found] = []
    scan.is_taken = partial(_is_taken, taken)
    left = len(wanted)
    for kind, finder in _FINDERS.items():
        if not left:
            break
        left -= kind in wanted
        for start, end in finder(scan):
            _take(Found(kind, start, end), taken)
    return [Found(kind, *clean.span(start, end)) for kind, start, end in taken if kind in wanted]


def _take(found: Found, taken: list[Found]) -> None:
    """Add a part at its place, unless it overlaps one of those taken."""
    place = bisect_left(taken, found.start, key=_start)
    if place and taken[place - 1].end > found.start:
        return
    if place == len(taken) or taken[place].start >= found.end:
        taken.insert(place, found)


def _is_taken(taken: list[Found], place: int) -> bool:
    number = bisect_right(taken, place, key=_start)
    return number > 0 and taken[number - 1].end > place


def _start(found: Found) -> int:
    return found.start
