"""The keys of objects that a pattern matches, by the rules of local patterns; there is no `**`."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def may_match(key: str, pattern: str) -> bool:
    """Whether each part of a key is named by, or matches, its part of the pattern."""
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
