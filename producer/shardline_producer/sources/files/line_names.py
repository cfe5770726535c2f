"""The names of files in ids that are made of file and line (`source.fields.id` is `line`). Pure."""

from collections import Counter
from collections.abc import Mapping
from posixpath import normpath


def line_names(files: Mapping[str, str]) -> list[str]:
    """The name of each file in its ids. `files` maps paths to the path of the job that found them.

    A name is the path below the folders that both have in common, so that it does not depend on where the
    files are: below the first wildcard, below a named folder, or the file's own name. Files whose names would
    be the same take one more folder each until they differ.
    """
    parts = [path.split("/") for path in files]
    starts = [_fixed(path, pattern) for path, pattern in files.items()]
    while True:
        names = ["/".join(one[start:]) for one, start in zip(parts, starts, strict=True)]
        times = Counter(names)
        longer = [start - (times[name] > 1 and start > 0) for name, start in zip(names, starts, strict=True)]
        if longer == starts:
            return names
        starts = longer


def _fixed(path: str, pattern: str) -> int:
    """How many parts of a path are those of the pattern. The last part never is."""
    # A path without `.` and `..` was found, unless a link made them necessary.
    patterns = [pattern] if pattern.startswith("s3://") else [pattern, normpath(pattern)]
    return max(_common(path.split("/"), one.split("/")) for one in patterns)


def _common(path: list[str], pattern: list[str]) -> int:
    count = 0
    for name, part in zip(path[:-1], pattern, strict=False):
        if name != part:
            break
        count += 1
    return count
