"""The port of storage that holds files."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, BinaryIO, Protocol

from shardline_common.ports.store import ObjectInfo

_REMOTE = "s3://"


def is_remote(path: str) -> bool:
    """Whether a path names an object on S3."""
    return path.startswith(_REMOTE)


class FileLocation(Protocol):
    """A storage that holds files. A file is {path, size, version}, which is JSON in the plan.

    `changed` is a further field where the version does not show each change of the bytes: the change time.
    """

    @property
    def not_found_hint(self) -> str:
        """The hint for a pattern that matches no file."""

    async def find(self, pattern: str) -> list[dict[str, Any]]:
        """The files of a path, a folder or a pattern, sorted by path; an empty list when none matches.

        `identity` is a further field, which is no part of the plan: two names of one file have a text in it
        in common.

        Raises:
            JobFailed: a file cannot be read, or the pattern is malformed (`source_invalid`).
            SourceUnavailable: a later try may succeed.
        """

    async def head(self, file: dict[str, Any], size: int) -> bytes:
        """The first `size` bytes of a file, or all of a shorter one. Raises as `stream`."""

    def stream(self, file: dict[str, Any], offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a file from `offset` on.

        Raises:
            JobFailed: the file has changed since planning, or changed during the read (`source_changed`).
            SourceUnavailable: a later try may succeed.
        """

    async def open(self, file: dict[str, Any]) -> BinaryIO | None:
        """A file for random access, which the caller closes; None where there is none but `stream`.

        Nothing shows a change of the file while it is read. Raises as `stream`.
        """

    async def check(self, files: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Check that files are still the planned ones. Returns those that may have other bytes all the same.

        Raises:
            JobFailed: one has changed since planning (`source_changed`).
            SourceUnavailable: a later try may succeed.
        """


class BucketReader(Protocol):
    """An S3 client as this source uses it: it lists and reads any bucket that it has access to."""

    def list_bucket(self, bucket: str, prefix: str) -> AsyncIterator[ObjectInfo]:
        """The objects below a prefix, in any order. Raises StoreUnavailable, and StoreRefused."""

    def stream_object(
        self, bucket: str, key: str, *, offset: int, etag: str, size: int
    ) -> AsyncIterator[bytes]:
        """The bytes of the object with that ETag and size, from `offset` to its end.

        Raises:
            JobFailed: it has another ETag, or more bytes (`source_changed`).
            StoreUnavailable, StoreRefused: as `list_bucket`.
        """


async def first_bytes(chunks: AsyncGenerator[bytes, None], size: int) -> bytes:
    """The first `size` bytes of a stream, or all: the same however it comes. The stream is closed."""
    head = b""
    async with aclosing(chunks):
        async for chunk in chunks:
            head += chunk
            if len(head) >= size:
                break
    return head[:size]
