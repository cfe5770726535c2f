"""A local directory as object store: temporary file, fsync, then link(2), which is create-only."""

import asyncio
import errno
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

from shardline_common.errors import ObjectExists, ObjectMissing, StoreUnavailable
from shardline_common.ports.store import Body, HashedFile, KeptVersions, ObjectInfo
from shardline_common.runtime.paths import NotRegularFile, open_regular, os_reason, shown_path
from shardline_common.runtime.purge import delete_listed
from shardline_common.runtime.threads import open_to_read, run_in_thread
from shardline_common.storage.object_keys import checked_key

CHUNK = 1 << 20
_LINK_TRIES = 10
HIDDEN = ".shardline-tmp"
# The lock of all that write into the directory. Those of jobs have longer names.
LOCK = ".shardline-lock"
# A folder, a FIFO or a broken link under a key is no object.
_NO_OBJECT = (FileNotFoundError, NotADirectoryError, NotRegularFile)


class DirectoryStore:
    """Implements `ports.store.ObjectStore` below `root`. Blocking work runs on threads."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def uri(self) -> str:
        """The directory."""
        return str(self._root)

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:  # noqa: ARG002 - files have no type
        """Create the complete file, or raise ObjectExists."""
        target = self._path(key)
        await run_in_thread(lambda: self._create(key, target, body))

    def _create(self, key: str, target: Path, body: Body) -> None:
        try:
            temporary = self._write(body)
        except (OSError, ValueError) as error:
            raise self._unavailable(error) from error
        try:
            _link(temporary, target)
            _sync_directory(target.parent)
        except (FileExistsError, NotADirectoryError):
            # Also when a file is in the place of one of the folders: no later create can succeed either.
            raise ObjectExists(f"{key} exists") from None
        except (OSError, ValueError) as error:
            raise self._unavailable(error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, body: Body) -> Path:
        folder = self._root / HIDDEN
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(body, HashedFile) and (linked := _linked(body.path, folder)) is not None:
            return linked
        handle, name = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                if isinstance(body, bytes):
                    file.write(body)
                else:
                    path = body.path if isinstance(body, HashedFile) else body
                    with path.open("rb") as source:
                        shutil.copyfileobj(source, file, CHUNK)
                file.flush()
                os.fsync(file.fileno())
                # mkstemp makes private files. A dataset has the permissions that the umask allows.
                Path(name).chmod(0o666 & ~_umask())
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
        return Path(name)

    async def get(self, key: str) -> bytes:
        """The file's bytes."""
        path = self._path(key)
        try:
            return await asyncio.to_thread(_read_file, path)
        except _NO_OBJECT:
            raise ObjectMissing(f"there is no {key} in {self._root}") from None
        except (OSError, ValueError) as error:
            raise self._unavailable(error) from error

    async def stream(self, key: str, *, offset: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        """The file's bytes from `offset` on, at most `size`."""
        try:
            file = await open_to_read(self._path(key))
        except _NO_OBJECT:
            raise ObjectMissing(f"there is no {key} in {self._root}") from None
        except (OSError, ValueError) as error:
            raise self._unavailable(error) from error
        with file:
            file.seek(offset)
            left = sys.maxsize if size is None else size
            while left and (chunk := await self._read_chunk(file, min(left, CHUNK))):
                left -= len(chunk)
                yield chunk

    async def _read_chunk(self, file: BinaryIO, size: int) -> bytes:
        try:
            return await asyncio.to_thread(_read_whole, file, size)
        except OSError as error:
            raise self._unavailable(error) from error

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Files by key in byte order. Each folder is read only when the walk reaches it."""
        walk = self._walk(prefix, start_after)
        while batch := await asyncio.to_thread(_next_batch, walk):
            for info in batch:
                yield info

    def _walk(self, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        start = prefix.rpartition("/")[0]
        yield from self._below(start + "/" if start else "", prefix, start_after)

    def _below(self, folder: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        # In the byte order of full keys, a folder sorts as its name followed by a slash.
        for name, is_folder in sorted(self._entries(folder), key=lambda item: os.fsencode(item[0])):
            key = folder + name
            if is_folder:
                if _may_hold(key, prefix, start_after):
                    yield from self._below(key, prefix, start_after)
            elif key.startswith(prefix) and os.fsencode(key) > os.fsencode(start_after):
                info = self._info(key)
                if info is not None:
                    yield info

    def _entries(self, folder: str) -> Sequence[tuple[str, bool]]:
        try:
            with os.scandir(self._root / folder) as found:
                return [
                    (entry.name + "/", True) if entry.is_dir(follow_symlinks=False) else (entry.name, False)
                    for entry in found
                    if folder or not (entry.name == HIDDEN or entry.name.startswith(LOCK))
                ]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError) as error:
            raise self._unavailable(error) from error

    def _info(self, key: str) -> ObjectInfo | None:
        path = self._root / key
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            if not path.is_symlink():
                return None
            # A broken link may lead to a file later. For now it has no bytes.
            return ObjectInfo(_shown(key), 0)
        except (OSError, ValueError) as error:
            raise self._unavailable(error) from error
        return ObjectInfo(_shown(key), stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove files, and the folders that become empty."""
        paths = [self._path(key) for key in keys]
        await run_in_thread(lambda: self._delete(paths))

    async def purge(self, prefix: str, *, versions: bool = False) -> KeptVersions | None:  # noqa: ARG002 - it has none
        """Delete all objects below a prefix."""
        await delete_listed(self, prefix)
        return None

    def _delete(self, paths: Sequence[Path]) -> None:
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except (NotADirectoryError, IsADirectoryError):
                # It is no object.
                continue
            except (OSError, ValueError) as error:
                raise self._unavailable(error) from error
        for folder in {path.parent for path in paths}:
            self._remove_empty(folder)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _unavailable(self, error: OSError | ValueError) -> StoreUnavailable:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free disk space there" if full else "check the folder and its permissions"
        return StoreUnavailable(f"{shown_path(self._root)} cannot be used: {os_reason(error)}", hint=hint)


def _linked(source: Path, folder: Path) -> Path | None:
    """A second name of a file, whose bytes are durable; None where it cannot have one.

    Nobody writes to a HashedFile any more. To copy a shard takes as long as to hash it.
    """
    if os.name != "posix":
        return None
    linked = folder / f"tmp{secrets.token_hex(8)}"
    try:
        os.link(source, linked)
    except OSError:
        # Such as a spool folder on another file system, or one without links.
        return None
    try:
        _sync(source)
        linked.chmod(0o666 & ~_umask())
    except OSError:
        linked.unlink(missing_ok=True)
        raise
    return linked


def _link(temporary: Path, target: Path) -> None:
    """Link a file into a folder that another process may remove, because it was empty, until the link is."""
    for left in reversed(range(_LINK_TRIES)):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(temporary, target)
        except FileNotFoundError:
            if not left or not temporary.exists():
                raise
        else:
            return


def _read_file(path: Path) -> bytes:
    with open_regular(path) as file:
        return _read_whole(file, -1)


def _read_whole(file: BinaryIO, size: int) -> bytes:
    """The next `size` bytes; fewer, or all (-1), only up to the end of the file. Raises OSError."""
    found = file.read(size)
    if len(found) == size:
        return found
    # A file of the store never changes. A damaged or remote file system may end it too early.
    length = os.fstat(file.fileno()).st_size
    if file.tell() < length:
        raise OSError(errno.EIO, f"the bytes of a file end at {file.tell()} of {length}")
    return found


def _shown(key: str) -> str:
    # A name that is not UTF-8 is no key, and cannot be printed. It is listed with its bytes escaped.
    return os.fsencode(key).decode(errors="backslashreplace")


def _may_hold(folder: str, prefix: str, start_after: str) -> bool:
    in_prefix = folder.startswith(prefix) or prefix.startswith(folder)
    behind = os.fsencode(folder) > os.fsencode(start_after) or start_after.startswith(folder)
    return in_prefix and behind


def _next_batch(walk: Iterator[ObjectInfo]) -> list[ObjectInfo]:
    return [info for _, info in zip(range(1000), walk, strict=False)]


@cache
def _umask() -> int:
    # The umask can only be read by setting it, which affects all threads: read it once.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_directory(folder: Path) -> None:
    # Windows cannot open a directory; there a link is as durable as its file.
    if os.name == "posix":
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
