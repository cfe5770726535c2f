"""The check that a pattern with `**` ends: no link leads back to a folder above it."""

import glob
import os
from pathlib import Path

from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.files.file_errors import source_invalid

_MAX_FOLDERS = 1_000_000


def check_links(pattern: str) -> None:
    """Walk the folders that the first `**` of a pattern matches; without one do nothing.

    `glob` follows a link to a folder above it up to the system's limit of 40 links. With two such links it
    visits 2^40 folders, and lists each file as often.

    Raises:
        JobFailed: there is such a link, or there are over a million folders (`source_invalid`).
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        return
    above = Path(*parts[: parts.index("**")])
    starts = glob.glob(str(above))  # noqa: PTH207 - Path.glob takes no absolute pattern
    waiting = [(start, frozenset[str]()) for start in starts]
    count = 0
    while waiting:
        folder, parents = waiting.pop()
        count += 1
        if count > _MAX_FOLDERS:
            raise source_invalid(
                f"'{shown_path(pattern)}' searches more than {_MAX_FOLDERS:,} folders",
                "name the folders more closely",
            )
        real = os.path.realpath(folder)
        if real in parents:
            raise source_invalid(
                f"{shown_path(folder)} is a link to a folder above it: '**' would never end",
                "remove the link, or use a pattern without '**'",
            )
        waiting += [(path, parents | {real}) for path in _folders(folder)]


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as found:
            # `**` matches no name that starts with a dot.
            return [entry.path for entry in found if not entry.name.startswith(".") and _is_folder(entry)]
    except OSError:
        # `glob` skips what it cannot list.
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
