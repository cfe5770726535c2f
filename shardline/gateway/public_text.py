"""Sentences for users of the gateway: without the addresses and the absolute paths of the installation. Pure.

Errors name what an operator needs: the address that cannot be reached, the folder that is full. A user of the
gateway can do nothing with them, and a stranger could. The log has the whole sentence.
"""

import re
from collections.abc import Iterable
from functools import lru_cache, partial
from ipaddress import ip_address
from pathlib import Path, PurePath
from urllib.parse import urlsplit

from shardline_common.settings.load import Settings

_HIDDEN = "…"
_KEPT_TEXTS, _MAX_KEPT_CHARS = 512, 2_000
# The names of settings that hold an address.
_ADDRESSES = re.compile(r"(^|_)(host|url|uri|servers|endpoint)(_|$)")
# Objects in S3 are named by bucket and key, which users know.
_URL = re.compile(r"\b(?!s3://)[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"`,;<>()]*[^\s'\"`,;<>().:?!]")
_QUOTED_PATH = re.compile(r"(?<=['\"`])(?:/|[A-Za-z]:\\|\\\\)[^'\"`\n]*(?=['\"`])")
_PATH = re.compile(r"(?<![\w/.~…-])(?<!s3:)/[^\s'\"`,;:()<>{}\[\]]+")
_WINDOWS_PATH = re.compile(r"(?<![\w/])(?:[A-Za-z]:\\|\\\\\w)[^\s'\"`,;<>]*")
# The mapping that an error proposes: its JSON pointers look like paths, and a user pastes them into the job.
_FIELDS = re.compile(r'("fields": \{(?:"(?:[^"\\]|\\.)*"(?:: |, |(?=\})))+\})')
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?:[:/]\d+)?(?![\w.]*\d)")
_IPV6 = re.compile(
    r"\[[0-9a-fA-F:.]+(?:%\w+)?\](?::\d+)?|(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,}[0-9a-fA-F.]*(?:%\w+)?"
)
_PRIVATE = "internal|intern|local|localdomain|lan|corp|intranet|home|private|svc"
_PRIVATE_NAME = re.compile(
    rf"(?<![\w.-])[\w-]+(?:\.[\w-]+)*\.(?:{_PRIVATE})(?:\.[\w-]+)*(?::\d+)?(?![\w-])", re.IGNORECASE
)
_HOST_AND_PORT = re.compile(r"(?<![\w./-])(?=[\d.-]*[A-Za-z_])([\w-]+(?:\.[\w-]+)*):\d{2,5}(?!\w)(?!:\d)")
_FILE_SUFFIX = re.compile(
    r"\.(jsonl|ndjson|json|csv|tsv|parquet|arrow|txt|md|gz|zst|xz|bz2|py)$", re.IGNORECASE
)


class PublicTexts:
    """`public_text` with the names in the settings of this process. The last results are kept."""

    def __init__(self, settings: Settings) -> None:
        self._of = lru_cache(maxsize=_KEPT_TEXTS)(partial(public_text, inner=inner_names(settings)))

    def __call__(self, text: str) -> str:
        """Return the sentence as users may see it."""
        # A long one is rare, and would fill the memory.
        return self._of(text) if len(text) <= _MAX_KEPT_CHARS else self._of.__wrapped__(text)


def inner_names(settings: Settings) -> frozenset[str]:
    """Return the host names and the folders in the settings of this process."""
    found = set[str]()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path):
            found.add(str(value.absolute()))
        elif isinstance(value, str) and _ADDRESSES.search(name):
            found |= {host for entry in value.split(",") if (host := _host(entry.strip()))}
    return frozenset(text for text in found if text not in ("", "/", "."))


def _host(entry: str) -> str:
    try:
        return urlsplit(entry if "://" in entry else f"//{entry}").hostname or ""
    except ValueError:
        return entry


def public_text(text: str, inner: frozenset[str] = frozenset()) -> str:
    """Replace addresses and absolute paths by `…`. The last name of a path stays, to say which file is meant.

    JSON pointers of a proposed mapping stay too. Addresses are URLs, IP addresses, hosts with a port, names
    of private networks, and the names in `inner`.
    """
    # Every second part is a mapping.
    parts = _FIELDS.split(text)
    return "".join(_public_part(part, inner, paths=number % 2 == 0) for number, part in enumerate(parts))


def _public_part(text: str, inner: frozenset[str], *, paths: bool) -> str:
    text = _URL.sub(_HIDDEN, text)
    if paths:
        text = _QUOTED_PATH.sub(_last_name, text)
    if inner:
        text = _literal(inner).sub(_HIDDEN, text)
    if paths:
        text = _PATH.sub(_last_name, text)
    text = _WINDOWS_PATH.sub(_last_name, text)
    text = _IPV6.sub(_if_ipv6, text)
    text = _IPV4.sub(_HIDDEN, text)
    text = _PRIVATE_NAME.sub(_HIDDEN, text)
    return _HOST_AND_PORT.sub(_if_no_file, text)


@lru_cache(maxsize=8)
def _literal(inner: Iterable[str]) -> re.Pattern[str]:
    # The longest first: a folder may lie in another one of the settings.
    names = "|".join(re.escape(name) for name in sorted(inner, key=len, reverse=True))
    return re.compile(rf"(?<![\w.-])(?:{names})(?::\d+)?(?![\w-])(?!\.\w)", re.IGNORECASE)


def _last_name(match: re.Match[str]) -> str:
    name = PurePath(match[0].replace("\\", "/")).name
    return f"{_HIDDEN}/{name}" if name else _HIDDEN


def _if_ipv6(match: re.Match[str]) -> str:
    text = match[0] if match[0].startswith("[") else match[0].rstrip(".")
    if text.endswith(":") and not text.endswith("::"):
        # The colon of the sentence.
        text = text[:-1]
    address = text[1:].partition("]")[0] if text.startswith("[") else text
    try:
        ip_address(address.partition("%")[0])
    except ValueError:
        return match[0]
    return _HIDDEN + match[0][len(text) :]


def _if_no_file(match: re.Match[str]) -> str:
    return match[0] if _FILE_SUFFIX.search(match[1]) else _HIDDEN
