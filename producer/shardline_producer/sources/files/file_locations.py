"""Where files lie: local folders and S3 buckets, behind one small port."""

import asyncio
import glob
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable, StoreUnavailable
from shardline_common.ports.store import ObjectInfo
from shardline_common.runtime.threads import open_to_read

CHUNK = 1 << 18
_WILD = re.compile(r"[*?\[]")


def invalid(message: str, hint: str | None = None) -> JobFailed:
    """The job names something that cannot be read."""
    return JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint)


def changed(name: str) -> JobFailed:
    """A file is not what it was when the job was planned."""
    return JobFailed(
        FailureCode.SOURCE_CHANGED,
        f"{name} changed after the job was planned",
        hint="put the file back as it was and retry the job, or submit a new job",
    )


class FileLocation(Protocol):
    """A kind of place that files lie in."""

    @property
    def advice(self) -> str:
        """What may be wrong where nothing is found."""

    async def find(self, pattern: str) -> list[dict[str, Any]]:
        """The files of a path or pattern, by name: [{path, size, version}]."""

    def stream(self, file: dict[str, Any], offset: int) -> AsyncGenerator[bytes, None]:
        """A file's bytes from `offset` on. Raises JobFailed when it is not the frozen one any more."""


class RemoteFiles(Protocol):
    """What the S3 adapter offers to sources: any bucket that the credentials may read."""

    def list_bucket(self, bucket: str, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Objects by key."""

    def stream_object(self, bucket: str, key: str, *, offset: int, etag: str) -> AsyncIterator[bytes]:
        """Bytes of the object of that ETag. Raises JobFailed (`source_changed`) of another one."""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Files below `root`; relative paths start there. `confined` refuses everything outside of it."""

    root: Path
    confined: bool = True

    @property
    def advice(self) -> str:
        """Where relative paths start."""
        return f"relative paths start at {self.root.resolve()}; FILES_ROOT says where else"

    async def find(self, pattern: str) -> list[dict[str, Any]]:
        """Files of a path or glob pattern."""
        return await asyncio.to_thread(self._find, pattern)

    def _find(self, pattern: str) -> list[dict[str, Any]]:
        path = str(self.root / pattern)
        found = [path]
        if _WILD.search(pattern):
            found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        return [self._identity(Path(name), pattern) for name in found if not Path(name).is_dir()]

    def _identity(self, path: Path, pattern: str) -> dict[str, Any]:
        self._check_inside(path, pattern)
        try:
            stat = path.stat()
        except OSError as error:
            raise invalid(f"{path} cannot be read: {error.strerror}") from None
        # The name is as the job gives it: where the root lies must not show in the dataset.
        name = str(path) if Path(pattern).is_absolute() else os.path.relpath(path, self.root)
        return {"path": name, "size": stat.st_size, "version": str(stat.st_mtime_ns)}

    def _check_inside(self, path: Path, pattern: str) -> None:
        root = self.root.resolve()
        if self.confined and not path.resolve().is_relative_to(root):
            raise invalid(
                f"{pattern!r} lies outside of {root}, where this producer may read files",
                "move the file there, or set FILES_ROOT of the producer",
            )

    async def stream(self, file: dict[str, Any], offset: int) -> AsyncGenerator[bytes, None]:
        """A file's bytes; its size and time are checked before and after."""
        path = self.root / file["path"]
        self._check_inside(path, file["path"])
        try:
            handle = await open_to_read(path)
        except OSError:
            raise changed(file["path"]) from None
        with handle:
            _check_version(handle.fileno(), file)
            handle.seek(offset)
            while chunk := await asyncio.to_thread(handle.read, CHUNK):
                yield chunk
            _check_version(handle.fileno(), file)


def _check_version(descriptor: int, file: dict[str, Any]) -> None:
    stat = os.fstat(descriptor)
    if (stat.st_size, str(stat.st_mtime_ns)) != (file["size"], file["version"]):
        raise changed(file["path"])


@dataclass(frozen=True, slots=True)
class S3Files:
    """Objects named `s3://bucket/key`, where the key may hold `*` and `?`."""

    remote: RemoteFiles

    @property
    def advice(self) -> str:
        """What stars reach over."""
        return "a star does not reach over a slash; `aws s3 ls` shows what is there"

    async def find(self, pattern: str) -> list[dict[str, Any]]:
        """Objects of a key or pattern."""
        bucket, _, key = pattern.removeprefix("s3://").partition("/")
        if not bucket or not key:
            raise invalid(f"{pattern!r} is not of the form s3://bucket/key")
        prefix = _WILD.split(key, maxsplit=1)[0]
        with _as_source():
            return [
                {"path": f"s3://{bucket}/{info.key}", "size": info.size, "version": info.etag}
                async for info in self.remote.list_bucket(bucket, prefix)
                if info.key == key or (prefix != key and _matches(info.key, key))
            ]

    async def stream(self, file: dict[str, Any], offset: int) -> AsyncGenerator[bytes, None]:
        """An object's bytes, as long as its ETag is the frozen one."""
        bucket, _, key = file["path"].removeprefix("s3://").partition("/")
        chunks = self.remote.stream_object(bucket, key, offset=offset, etag=file["version"])
        while True:
            with _as_source():
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield chunk


@contextmanager
def _as_source() -> Iterator[None]:
    # The same S3 may hold the dataset: who reads must be able to tell which of the two is away.
    try:
        yield
    except StoreUnavailable as error:
        raise SourceUnavailable(str(error), hint=error.hint) from error


def _matches(key: str, pattern: str) -> bool:
    # As in a shell, a star does not reach over a slash.
    names, wanted = key.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(map(fnmatchcase, names, wanted))
