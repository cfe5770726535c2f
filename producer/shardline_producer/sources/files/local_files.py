"""Files on this machine, read by the port `FileLocation`."""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from shardline_common.runtime.paths import NotRegularFile, open_regular, path_fault, shown_path
from shardline_common.runtime.retry import Backoff
from shardline_common.runtime.threads import open_to_read, run_in_thread
from shardline_producer.sources.files.file_errors import source_changed, source_invalid, unreadable
from shardline_producer.sources.files.file_locations import first_bytes
from shardline_producer.sources.files.key_patterns import (
    has_wildcard,
)
from shardline_producer.sources.files.linked_folders import files_below, matching_paths

_log = logging.getLogger(__name__)
# That of the blocks with digests: a block is read and hashed by one call of a thread.
_CHUNK = 1 << 20
_MAX_SHORT_READS = 3
_BACKOFF = Backoff(base=0.1, cap=5.0)


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Implements `FileLocation` for files on this machine. The version is the time of the last change.

    Relative paths start at `root`; with `confined` every file outside of it is refused.
    """

    root: Path
    confined: bool = True

    @property
    def not_found_hint(self) -> str:
        """Where relative paths start."""
        return f"relative paths start at {self.root.resolve()}; set FILES_ROOT to start them elsewhere"

    async def find(self, pattern: str) -> list[dict[str, Any]]:
        """The files of a path or glob pattern, or all below a folder."""
        return await run_in_thread(partial(self._find, pattern))

    def _find(self, pattern: str) -> list[dict[str, Any]]:
        if (fault := path_fault(pattern)) is not None:
            raise source_invalid(f"the path '{shown_path(pattern)}' {fault}")
        wildcards = has_wildcard(pattern)
        paths = matching_paths(str(self.root), pattern) if wildcards else [str(self.root / pattern)]
        if not wildcards and os.path.isdir(paths[0]):  # noqa: PTH112 - Path.is_dir raises for long names
            self._check_inside(paths[0], pattern)
            paths = self._files_below(paths[0], pattern)
        found: list[dict[str, Any]] = []
        for path in paths:
            if wildcards and os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for long names
                continue
            self._check_inside(path, pattern)
            # A relative pattern gives relative names: the dataset must not depend on the path of the root.
            name = str(Path(path)) if Path(pattern).is_absolute() else self._relative(path)
            if (fault := path_fault(name)) is not None:
                raise source_invalid(f"the name of {shown_path(path)} {fault}", "rename the file")
            status = _checked_status(path)
            found.append({"path": name, **_versions(status), "identity": _identity(path, status)})
        return found

    @staticmethod
    def _files_below(folder: str, pattern: str) -> list[str]:
        paths = files_below(folder, pattern)
        if not paths:
            raise source_invalid(
                f"the folder {shown_path(pattern)} holds no files",
                "hidden files do not count, nor what programs write for themselves, such as _SUCCESS",
            )
        return paths

    def _relative(self, path: str) -> str:
        name = os.path.relpath(path, self.root)
        if os.path.realpath(self.root / name) == os.path.realpath(path):
            return name
        # Behind a link, ".." is the folder above its target: without it, this is another file.
        return path.removeprefix(str(self.root) + os.sep)

    def _check_inside(self, path: str, pattern: str) -> None:
        if not self.confined:
            return
        # Path.resolve raises RuntimeError for a link that leads to itself.
        root, real = os.path.realpath(self.root), os.path.realpath(path)
        if not Path(real).is_relative_to(root):
            raise source_invalid(
                f"'{shown_path(pattern)}' is outside of {root}, the folder that this producer may read",
                "move the file there, or set FILES_ROOT of the producer",
            )

    async def head(self, file: dict[str, Any], size: int) -> bytes:
        """The first bytes of a file, by one call of a thread: a folder may have 100,000 files."""
        found = await run_in_thread(partial(self._head, file, size))
        # Other bytes than its size says: a short read, or a special file.
        return (
            found if len(found) == min(size, file["size"]) else await first_bytes(self.stream(file, 0), size)
        )

    def _head(self, file: dict[str, Any], size: int) -> bytes:
        path = str(self.root / file["path"])
        self._check_inside(path, file["path"])
        try:
            with open_regular(path) as handle:
                _check_version(handle.fileno(), file)
                return handle.read(min(size, file["size"] + 1)) or b""
        except (FileNotFoundError, NotADirectoryError, NotRegularFile):
            raise source_changed(file["path"]) from None
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from None

    async def stream(self, file: dict[str, Any], offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a file. Its size and time are checked before the first byte and after the last."""
        async with aclosing(self._chunks(file, offset, hashed=False)) as chunks:
            async for chunk, _ in chunks:
                yield chunk

    def hashed(self, file: dict[str, Any], offset: int) -> AsyncGenerator[tuple[bytes, str], None]:
        """As `stream`, each chunk with its sha256 in hexadecimal. The thread that reads a chunk hashes it."""
        return self._chunks(file, offset, hashed=True)

    async def _chunks(
        self, file: dict[str, Any], offset: int, *, hashed: bool
    ) -> AsyncGenerator[tuple[bytes, str], None]:
        handle = await self.open(file)
        with handle:
            async with aclosing(_planned_bytes(handle, file, offset, hashed)) as chunks:
                try:
                    async for chunk in chunks:
                        yield chunk
                except OSError as error:
                    raise unreadable(str(self.root / file["path"]), error) from None

    async def open(self, file: dict[str, Any]) -> BinaryIO:
        """A file whose size and time are the planned ones."""
        path = str(self.root / file["path"])
        self._check_inside(path, file["path"])
        try:
            handle = await open_to_read(Path(path))
        except (FileNotFoundError, NotADirectoryError, NotRegularFile):
            raise source_changed(file["path"]) from None
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from None
        try:
            _check_version(handle.fileno(), file)
        except BaseException:
            handle.close()
            raise
        return handle

    async def check(self, files: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Compare size and time. Returns the files whose change time moved, which nobody can put back."""
        return await run_in_thread(partial(self._check, files))

    def _check(self, files: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        moved = []
        for file in files:
            try:
                found = _versions(os.stat(self.root / file["path"]))  # noqa: PTH116 - as open_regular calls it
            except (FileNotFoundError, NotADirectoryError):
                raise source_changed(file["path"], "it is no longer there") from None
            except OSError as error:
                raise unreadable(file["path"], error) from None
            if (found["size"], found["version"]) != (file["size"], file["version"]):
                raise source_changed(file["path"])
            # A plan of version 0.1 has no change time.
            if found["changed"] != file.get("changed", found["changed"]):
                moved.append(file)
        return moved


async def _planned_bytes(
    handle: BinaryIO, file: dict[str, Any], offset: int, hashed: bool
) -> AsyncGenerator[tuple[bytes, str], None]:
    """The bytes of an open file up to its planned size. A file that ends before it is read again there.

    With `hashed`, each chunk comes with its sha256, else with "".

    Raises:
        JobFailed: it has fewer bytes, or more, or another size or time (`source_changed`). A special file has
            more bytes than its size of 0 (`source_invalid`).
        OSError: as a read raises it.
    """
    size, failures = file["size"], 0
    handle.seek(offset)
    # A cancel awaits the thread: closing a file that the thread reads would block the event loop.
    while True:
        chunk, more, digest = await run_in_thread(partial(_read_on, handle, size - offset, hashed))
        offset += len(chunk) + len(more)
        if offset > size:
            break
        if chunk:
            yield chunk, digest
        if offset == size:
            break
        if chunk:
            continue
        # A network file system may end a read early, and serves the rest when it is asked again.
        _check_version(handle.fileno(), file)
        failures += 1
        if failures > _MAX_SHORT_READS:
            raise source_changed(file["path"], f"its bytes end at {offset} of {size}")
        _log.warning("%s: the bytes end at %d of %d; reading again", file["path"], offset, size)
        await asyncio.sleep(_BACKOFF.longest(failures))
        handle.seek(offset)
    _check_version(handle.fileno(), file)
    if offset > size:
        if size == 0:
            # Such as a file of /proc.
            raise source_invalid(f"{shown_path(file['path'])} has more bytes than its size of 0")
        raise source_changed(file["path"], f"it has more bytes than the {size} of its size")


def _identity(path: str, status: os.stat_result) -> list[str]:
    """What two names of one file have in common, any of it: the path behind all links, or the inode."""
    # Where a file system gives the same inode number to several files, they differ in the rest.
    inode = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return [os.path.realpath(path), *([":".join(map(str, inode))] if status.st_ino else [])]


def _checked_status(path: str) -> os.stat_result:
    # Opened, because only that shows whether the process may read the file.
    try:
        with open_regular(path) as handle:
            return os.fstat(handle.fileno())
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def _read_on(handle: BinaryIO, left: int, hashed: bool) -> tuple[bytes, bytes, str]:
    """The next bytes of a file; when they are all that are left, what comes behind them; and their sha256."""
    chunk = _read(handle)
    more = _read(handle) if chunk and len(chunk) == left else b""
    return chunk, more, sha256(chunk).hexdigest() if hashed else ""


def _read(handle: BinaryIO) -> bytes:
    chunk: bytes | None = handle.read(_CHUNK)
    if chunk is None:
        # A regular file never waits for bytes; some files of /proc do.
        raise NotRegularFile(errno.EINVAL, "it has no bytes yet: it is not a regular file")
    return chunk


def _versions(status: os.stat_result) -> dict[str, Any]:
    return {
        "size": status.st_size,
        "version": str(status.st_mtime_ns),
        "changed": str(status.st_ctime_ns),
    }


def _check_version(descriptor: int, file: dict[str, Any]) -> None:
    try:
        status = os.fstat(descriptor)
    except OSError as error:
        raise unreadable(file["path"], error) from None
    if (status.st_size, str(status.st_mtime_ns)) != (file["size"], file["version"]):
        raise source_changed(file["path"])
