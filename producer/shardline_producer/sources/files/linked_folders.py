"""The local files that a pattern matches, or below a folder. What cannot be looked into is an error.

`glob.glob` has the same patterns. It takes each error of the system for "matches nothing", so a folder that
the process may not list or enter would hide its files, and it follows a link to a folder above it up to the
system's limit of 40 links: with two such links it visits 2^40 folders.
"""

import errno
import fnmatch
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.files.file_errors import source_invalid, unreadable

_MAX_FOLDERS = 1_000_000
_ANY_DEPTH = "**"
_SYSTEM_FOLDERS = ("proc", "sys", "dev")
_MARKERS = {
    "_SUCCESS",
    "_metadata",
    "_common_metadata",
    "_temporary",
    "_delta_log",
    "Thumbs.db",
    "desktop.ini",
}
_GONE = (FileNotFoundError, NotADirectoryError)


def matching_paths(root: str, pattern: str) -> list[str]:
    """The paths that a pattern matches, sorted; a relative pattern starts at `root`.

    `*`, `?` and `[]` match names in one folder that do not begin with a dot, `**` matches folders at any
    depth. A part of the pattern that exists by that very name is that name, if the rest of the pattern
    matches below it: `a[1].jsonl` is the file of this name although it would match `a1.jsonl`.

    Raises:
        JobFailed: the process may not list or enter a folder, a link leads to a folder above itself, or there
            are over a million folders (`source_invalid`).
        SourceUnavailable: a later try may succeed.
    """
    if pattern.endswith(("/", "/.")):
        # It names folders.
        return []
    path = Path(pattern)
    start, parts = (path.anchor, path.parts[1:]) if path.is_absolute() else (root, path.parts)
    try:
        return sorted(set(_Search(pattern).matches(start, parts)))
    except RecursionError:
        raise source_invalid(f"the folders of {shown_path(pattern)} are nested too deep") from None


def files_below(folder: str, shown: str) -> list[str]:
    """The paths of all files below a folder, without markers, in the byte order of their paths.

    Links to other folders are followed. `shown` is the folder as the job names it.

    Raises: as `matching_paths`, and `source_invalid` for a folder of the system.
    """
    real = os.path.realpath(folder)
    if real == os.sep or Path(real).parts[1] in _SYSTEM_FOLDERS:
        raise source_invalid(f"{shown_path(shown)} is a folder of the system", "name the folder of the files")
    return sorted(_Search(shown).below(folder), key=os.fsencode)


def is_marker(name: str) -> bool:
    """Whether a file or folder of this name is left out: hidden, or made by a program for itself."""
    return name.startswith((".", "_committed_", "_started_")) or name in _MARKERS or name.endswith(".crc")


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


class _Search:
    """One search of a pattern or a folder. It counts the folders that it visits."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._folders = 0

    def matches(self, folder: str, parts: Sequence[str]) -> list[str]:
        """The paths below a folder that the parts match. The folder itself when there are none."""
        while parts and not glob.has_magic(parts[0]):
            folder, parts = os.path.join(folder, parts[0]), parts[1:]  # noqa: PTH118 - a link may lead to ".."
        if not parts:
            return [folder] if _exists(folder) else []
        part, rest = parts[0], parts[1:]
        entries = _entries(folder)
        named = [entry for entry in entries if entry.name == part]
        if named and (found := self._below(named, rest)):
            return found
        if part == _ANY_DEPTH:
            return self._at_any_depth(folder, rest)
        names = set(fnmatch.filter((entry.name for entry in entries), part))
        hidden = part.startswith(".")
        return self._below(
            [entry for entry in entries if entry.name in names and (hidden or entry.name[0] != ".")], rest
        )

    def _below(self, entries: Sequence[os.DirEntry[str]], rest: Sequence[str]) -> list[str]:
        if not rest:
            # A folder is no file.
            return [entry.path for entry in entries if not _is_folder(entry)]
        folders = [entry.path for entry in entries if _is_folder(entry)]
        return [path for folder in folders for path in self.matches(folder, rest)]

    def _at_any_depth(self, start: str, rest: Sequence[str]) -> list[str]:
        found: list[str] = []
        for folder in self._walk(start):
            if rest:
                found += self.matches(folder, rest)
            else:
                found += [entry.path for entry in _seen(folder) if not _is_folder(entry)]
        return found

    def below(self, start: str) -> Iterator[str]:
        """The paths of all files below a folder."""
        for folder in self._walk(start, is_marker):
            yield from (
                entry.path
                for entry in _entries(folder)
                if not is_marker(entry.name) and not _is_folder(entry)
            )

    def _walk(self, start: str, left_out: Callable[[str], bool] = _is_hidden) -> Iterator[str]:
        """A folder and all folders below it, without those that are left out by their names."""
        waiting = [(start, frozenset[str]())]
        while waiting:
            folder, parents = waiting.pop()
            self._folders += 1
            if self._folders > _MAX_FOLDERS:
                raise source_invalid(
                    f"'{shown_path(self._pattern)}' has more than {_MAX_FOLDERS:,} folders to search",
                    "name the folders more closely",
                )
            real = os.path.realpath(folder)
            if real in parents:
                raise source_invalid(
                    f"{shown_path(folder)} is a link to a folder above it: the search would never end",
                    "remove the link, or use a pattern that does not lead through it",
                )
            waiting += [
                (entry.path, parents | {real})
                for entry in _entries(folder)
                if not left_out(entry.name) and _is_folder(entry)
            ]
            yield folder


def _seen(folder: str) -> list[os.DirEntry[str]]:
    """The entries that a pattern sees which does not begin with a dot."""
    return [entry for entry in _entries(folder) if not _is_hidden(entry.name)]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except _GONE:
        return []
    except (OSError, ValueError) as error:
        raise unreadable(folder, error) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            # A link to itself. As a file it is refused later.
            return False
        raise unreadable(entry.path, error) from None


def _exists(path: str) -> bool:
    try:
        os.lstat(path)
    except _GONE:
        return False
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    return True
