"""Checks of the folders that a pattern searches: each can be listed, and no link leads back above itself."""

import glob
import os
from pathlib import Path

from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.files.file_errors import source_invalid, unreadable

_MAX_FOLDERS = 1_000_000


def check_links(pattern: str) -> None:
    """Walk the folders that the first `**` of a pattern matches; without one do nothing.

    `glob` follows a link to a folder above it up to the system's limit of 40 links. With two such links it
    visits 2^40 folders, and lists each file as often.

    Raises:
        JobFailed: there is such a link, there are over a million folders, or the process may not list one of
            them (`source_invalid`).
        SourceUnavailable: a later try may succeed.
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


def check_listable(pattern: str) -> None:
    """Check that the folders which a pattern searches can be listed: `glob` skips those that cannot.

    Those below `**` are checked by `check_links`.

    Raises:
        JobFailed: the process may not list a folder (`source_invalid`).
        SourceUnavailable: a later try may succeed.
    """
    parts, is_pattern = Path(pattern).parts, False
    for number, part in enumerate(parts):
        if part == "**":
            return
        is_pattern = is_pattern or glob.has_magic(part)
        if not is_pattern:
            continue
        for folder in glob.glob(str(Path(*parts[:number]))):  # noqa: PTH207 - Path.glob takes no absolute pattern
            try:
                if glob.has_magic(part):
                    os.scandir(folder).close()
                else:
                    os.lstat(os.path.join(folder, part))  # noqa: PTH118 - Path.lstat is the same
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise unreadable(folder, error) from None


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as found:
            # `**` matches no name that starts with a dot.
            return [entry.path for entry in found if not entry.name.startswith(".") and _is_folder(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        # `glob` would skip it.
        raise unreadable(folder, error) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
