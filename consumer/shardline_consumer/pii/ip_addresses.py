"""IP addresses. Numbers of sections, such as 1.2.3.4, and versions have the form of one."""

import re
from collections.abc import Iterator

from shardline_consumer.pii.scan import Context, Scan, Span

_FOUR = re.compile(
    r"[0-9](?<![0-9A-Za-z_\\][0-9])(?<![0-9\\][.,][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z_]"
    r"|\.[0-9]|\.?-[0-9])"
)
_CONTEXT = Context(
    r"\bIP\b|\bIPs\b|IPv4|IP-|Adresse [0-9]|\bHost|Server|\bDNS|Gateway|Router|Firewall|\bPing|Proxy"
    r"|Subnet|Netzwerk"
    r"|Network|\bNode\b|Client|\bLog(?:in|ged|file)?\b|Request|https?://|Zugriff (?:von|auf)|\bport\b"
    r"|verbunden"
    r"|connect|\bssh\b|localhost"
    r"|anmeld|einwahl",
    r"Abschn|Nummer|\bNr|\bNo\b|Ziff|Kapitel|\bKap\.|\bPunkt|Section|\bSec\.|\xa7|Anlage|Anhang"
    r"|Tabelle|Table|Version|\bv\.?\s*$"
    r"|Release|\bOID|Chapter|Absatz|\bAbs\.|Figure|\bAbb|Bild|Teil|\bPart\b|Clause|Build|Firmware"
    r"|Position|\bPos\.|Annex"
    r"|Unterabsch|Artikel|\bArt\.|Software|Update|Bescheid",
)
_SURE_NUMBER = 100
_LARGE_NUMBER = 32
_LARGEST = 255
_MASK = "255"
_HEADING = re.compile(r"(?:^|\n)[ \t|*#]*\Z")

_SIX_PREFILTER = re.compile(r":[0-9A-Fa-f]{0,4}:")
_SIX = re.compile(
    r"(?<![0-9A-Za-z_:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?P<four>(?:\.[0-9]{1,3}){3})?"
    r"(?:%[0-9A-Za-z_.-]{1,16})?(?![0-9A-Za-z_:])"
)
_SIX_GROUPS = 8


def find_ip_addresses(scan: Scan) -> Iterator[Span]:
    """The addresses of both versions."""
    text = scan.text
    # First the longer one, which may end with the other.
    if _SIX_PREFILTER.search(text):
        for found in _SIX.finditer(text):
            if _is_six(found[0], four=found["four"]):
                yield found.span()
    for found in _FOUR.finditer(text):
        if _is_four(text, found):
            yield found.span()


def _is_four(text: str, found: re.Match[str]) -> bool:
    parts = found[0].split(".")
    numbers = [int(part) for part in parts]
    if (
        max(numbers) > _LARGEST
        or any(len(part) > 1 and part[0] == "0" for part in parts)
        or parts[0] == _MASK
    ):
        return False
    context = _CONTEXT.of(text, *found.span())
    if context is not None:
        return context
    # Sections have small numbers, few of them 0.
    if max(numbers) >= _SURE_NUMBER or sum(number >= _LARGE_NUMBER for number in numbers) > 1:
        return True
    return 0 in numbers[1:] and numbers[0] > 9 and not _HEADING.search(text, 0, found.start())  # noqa: PLR2004


def _is_six(address: str, four: str | None) -> bool:
    """The grammar of RFC 4291. Times, hardware addresses and scopes of C++ have another number of groups."""
    bare = address.partition("%")[0]
    if four:
        numbers = bare.rpartition(":")[2].split(".")
        if any(not number.isdigit() or int(number) > _LARGEST for number in numbers):
            return False
        bare = bare.rpartition(":")[0] + ":0:0"
    parts = bare.split(":")
    gap = bare.count("::")
    if (
        gap > 1
        or ":::" in bare
        or (bare[0] == ":" and bare[1] != ":")
        or (bare[-1] == ":" and bare[-2] != ":")
    ):
        return False
    groups = [part for part in parts if part]
    if gap:
        # `a::b` is C++. An address has a digit, and more than one group or one of four characters.
        known = len(groups) < _SIX_GROUPS and any(map(str.isdigit, bare))
        return known and (len(groups) > 2 or any(len(group) > 2 for group in groups) or bare == "::1")  # noqa: PLR2004
    # Eight groups of two are a hardware address, and smaller numbers a ratio.
    return len(groups) == _SIX_GROUPS and any(len(group) > 2 for group in groups)  # noqa: PLR2004
