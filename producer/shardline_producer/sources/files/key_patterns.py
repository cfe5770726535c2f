"""The keys of objects that a pattern matches, by the rules of local patterns; there is no `**`.

A pattern that ends with a slash matches all keys below it.
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from shardline_producer.sources.files.linked_folders import is_marker

_WILDCARD = re.compile(r"[*?\[]")


def has_wildcard(pattern: str) -> bool:
    """Whether a pattern may match more than the name that it is."""
    return _WILDCARD.search(pattern) is not None


def literal_start(pattern: str) -> str:
    """A pattern before its first wildcard."""
    return _WILDCARD.split(pattern, maxsplit=1)[0]


def is_folder(pattern: str) -> bool:
    """Whether a pattern of keys names all that is below it."""
    return not pattern or (pattern.endswith("/") and not has_wildcard(pattern))


def may_match(key: str, pattern: str) -> bool:
    """Whether each part of a key is named by, or matches, its part of the pattern."""
    if is_folder(pattern):
        # A key that ends with a slash is an empty object by which a program marks a folder.
        below = key.removeprefix(pattern)
        return key.startswith(pattern) and not any(not name or is_marker(name) for name in below.split("/"))
    # As in a shell, a star does not match a slash.
    names, parts = key.split("/"), pattern.split("/")
    return len(names) == len(parts) and all(
        name == part or fnmatchcase(name, part) for name, part in zip(names, parts, strict=True)
    )


def matching_keys(keys: Iterable[str], pattern: str) -> list[str]:
    """The keys that a pattern matches, of keys that may match it.

    A part of the pattern that exists by that very name is that name: `a[1].jsonl` is the object of this
    name although it would match `a1.jsonl`.
    """
    if is_folder(pattern):
        return list(keys)
    found = _matches([key.split("/") for key in keys], pattern.split("/"), 0)
    return ["/".join(names) for names in found]


def _matches(keys: list[list[str]], parts: Sequence[str], depth: int) -> list[list[str]]:
    if depth == len(parts) or not keys:
        return keys
    groups: dict[str, list[list[str]]] = {}
    for names in keys:
        groups.setdefault(names[depth], []).append(names)
    if (named := groups.get(parts[depth])) and (found := _matches(named, parts, depth + 1)):
        return found
    return [
        names
        for name, group in groups.items()
        if fnmatchcase(name, parts[depth])
        for names in _matches(group, parts, depth + 1)
    ]
