"""The port of storage that holds files, and its adapters: local folders and S3 buckets."""

import glob
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable, StoreUnavailable
from shardline_common.ports.store import ObjectInfo
from shardline_common.runtime.threads import open_to_read, run_in_thread

_CHUNK = 1 << 18
_WILDCARD = re.compile(r"[*?\[]")


def source_invalid(message: str, hint: str | None = None) -> JobFailed:
    """The error for a file that cannot be read."""
    return JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint)


def source_changed(name: str) -> JobFailed:
    """The error for a file that has changed since the job was planned."""
    return JobFailed(
        FailureCode.SOURCE_CHANGED,
        f"{name} changed after the job was planned",
        hint="put the file back as it was and retry the job, or submit a new job",
    )


class FileLocation(Protocol):
    """A storage that holds files. A file is {path, size, version}, which is JSON in the plan."""

    @property
    def not_found_hint(self) -> str:
        """The hint for a pattern that matches no file."""

    async def find(self, pattern: str) -> list[dict[str, Any]]:
        """The files of a path or pattern, sorted by path; an empty list when none matches.

        Raises:
            JobFailed: a file cannot be read, or the pattern is malformed (`source_invalid`).
            SourceUnavailable: a later try may succeed.
        """

    def stream(self, file: dict[str, Any], offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a file from `offset` on.

        Raises:
            JobFailed: the file has changed since planning, or changed during the read (`source_changed`).
            SourceUnavailable: a later try may succeed.
        """


class BucketReader(Protocol):
    """An S3 client as this source uses it: it lists and reads any bucket that it has access to."""

    def list_bucket(self, bucket: str, prefix: str) -> AsyncIterator[ObjectInfo]:
        """The objects below a prefix, sorted by key. Raises StoreUnavailable."""

    def stream_object(self, bucket: str, key: str, *, offset: int, etag: str) -> AsyncIterator[bytes]:
        """The bytes of the object with that ETag. Raises StoreUnavailable, JobFailed (`source_changed`)."""


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
        """The files of a path or glob pattern, without folders."""
        return await run_in_thread(partial(self._find, pattern))

    def _find(self, pattern: str) -> list[dict[str, Any]]:
        paths = [str(self.root / pattern)]
        if _WILDCARD.search(pattern):
            paths = sorted(glob.glob(paths[0], recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        found: list[dict[str, Any]] = []
        for path in map(Path, paths):
            if path.is_dir():
                continue
            self._check_inside(path, pattern)
            try:
                stat = path.stat()
            except OSError as error:
                raise source_invalid(f"{path} cannot be read: {error.strerror}") from None
            # A relative pattern gives relative names: the dataset must not depend on the path of the root.
            name = str(path) if Path(pattern).is_absolute() else os.path.relpath(path, self.root)
            found.append({"path": name, "size": stat.st_size, "version": str(stat.st_mtime_ns)})
        return found

    def _check_inside(self, path: Path, pattern: str) -> None:
        root = self.root.resolve()
        if self.confined and not path.resolve().is_relative_to(root):
            raise source_invalid(
                f"{pattern!r} is outside of {root}, the folder that this producer may read",
                "move the file there, or set FILES_ROOT of the producer",
            )

    async def stream(self, file: dict[str, Any], offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a file. Its size and time are checked before the first byte and after the last."""
        path = self.root / file["path"]
        self._check_inside(path, file["path"])
        try:
            handle = await open_to_read(path)
        except OSError:
            raise source_changed(file["path"]) from None
        with handle:
            _check_version(handle.fileno(), file)
            handle.seek(offset)
            # A cancel awaits the thread: closing a file that the thread reads would block the event loop.
            while chunk := await run_in_thread(partial(handle.read, _CHUNK)):
                yield chunk
            _check_version(handle.fileno(), file)


def _check_version(descriptor: int, file: dict[str, Any]) -> None:
    stat = os.fstat(descriptor)
    if (stat.st_size, str(stat.st_mtime_ns)) != (file["size"], file["version"]):
        raise source_changed(file["path"])


@dataclass(frozen=True, slots=True)
class S3Files:
    """Implements `FileLocation` for objects named `s3://bucket/key`. The version is the object's ETag.

    The key may hold the wildcards of a shell; none of them matches a slash.
    """

    client: BucketReader

    @property
    def not_found_hint(self) -> str:
        """What a star matches."""
        return "a star does not match a slash; list the objects with `aws s3 ls`"

    async def find(self, pattern: str) -> list[dict[str, Any]]:
        """The objects of a key or pattern."""
        bucket, _, key = pattern.removeprefix("s3://").partition("/")
        if not bucket or not key:
            raise source_invalid(f"{pattern!r} is not of the form s3://bucket/key")
        prefix = _WILDCARD.split(key, maxsplit=1)[0]
        with _source_errors():
            return [
                {"path": f"s3://{bucket}/{info.key}", "size": info.size, "version": info.etag}
                async for info in self.client.list_bucket(bucket, prefix)
                if info.key == key or (prefix != key and _matches(info.key, key))
            ]

    async def stream(self, file: dict[str, Any], offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of an object while its ETag is the planned one."""
        bucket, _, key = file["path"].removeprefix("s3://").partition("/")
        chunks = self.client.stream_object(bucket, key, offset=offset, etag=file["version"])
        while True:
            with _source_errors():
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield chunk


@contextmanager
def _source_errors() -> Iterator[None]:
    # The dataset may be on the same S3. The error must name which of the two is unavailable.
    try:
        yield
    except StoreUnavailable as error:
        raise SourceUnavailable(str(error), hint=error.hint) from error


def _matches(key: str, pattern: str) -> bool:
    # As in a shell, a star does not match a slash.
    names, patterns = key.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))
