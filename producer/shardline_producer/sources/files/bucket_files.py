"""Objects of S3 buckets, read by the port `FileLocation`."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from shardline_common.errors import ObjectMissing, SourceUnavailable, StoreRefused, StoreUnavailable
from shardline_common.runtime.listing import ListsDiffer, proven_list
from shardline_common.runtime.paths import path_fault, shown_path
from shardline_producer.sources.files.file_errors import source_changed, source_invalid
from shardline_producer.sources.files.file_locations import BucketReader, first_bytes
from shardline_producer.sources.files.key_patterns import (
    is_folder,
    literal_start,
    matching_keys,
    may_match,
)


@dataclass(frozen=True, slots=True)
class S3Files:
    """Implements `FileLocation` for objects named `s3://bucket/key`. The version is the object's ETag.

    The key may hold the wildcards of a shell; none of them matches a slash.
    """

    client: BucketReader

    @property
    def not_found_hint(self) -> str:
        """What a star matches, and how a folder is named."""
        return "a star does not match a slash, and a folder ends with one; list the objects with `aws s3 ls`"

    async def find(self, pattern: str) -> list[dict[str, Any]]:
        """The objects of a key or pattern, or all below a prefix that ends with a slash."""
        bucket, slash, key = pattern.removeprefix("s3://").partition("/")
        if not bucket or not slash:
            raise source_invalid(f"'{shown_path(pattern)}' is not of the form s3://bucket/key")
        if key and (fault := path_fault(key)) is not None:
            raise source_invalid(f"the path '{shown_path(pattern)}' {fault}")
        with _source_errors():
            try:
                found = await proven_list(partial(self._listed, bucket, key))
            except ListsDiffer as error:
                raise SourceUnavailable(
                    f"the objects of {shown_path(pattern)} differ from list to list: {error}",
                    hint="wait until nothing writes to these objects; else the store's lists are not whole",
                ) from None
        return [
            {"path": path, "size": size, "version": version}
            for path, (size, version) in sorted(found.items())
        ]

    async def _listed(self, bucket: str, key: str) -> dict[str, tuple[int, str]]:
        """Size and ETag of the objects of a key or pattern by path, from one listing."""
        prefix, found = literal_start(key), dict[str, tuple[int, str]]()
        async with aclosing(self.client.list_bucket(bucket, prefix)) as infos:  # type: ignore[type-var]
            async for info in infos:
                if may_match(info.key, key):
                    found[info.key] = info.size, info.etag
                if prefix == info.key == key and not is_folder(key):
                    # Without wildcards there is one object.
                    break
        return {f"s3://{bucket}/{name}": found[name] for name in matching_keys(found, key)}

    async def head(self, file: dict[str, Any], size: int) -> bytes:
        """The first bytes of an object. The rest is not read."""
        return await first_bytes(self.stream(file, 0), size)

    async def stream(self, file: dict[str, Any], offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of an object while its ETag is the planned one."""
        bucket, _, key = file["path"].removeprefix("s3://").partition("/")
        chunks = self.client.stream_object(
            bucket, key, offset=offset, etag=file["version"], size=file["size"]
        )
        async with aclosing(chunks):  # type: ignore[type-var]
            while True:
                try:
                    with _source_errors():
                        chunk = await anext(chunks, None)
                except ObjectMissing:
                    raise source_changed(file["path"]) from None
                if chunk is None:
                    return
                yield chunk

    async def open(self, file: dict[str, Any]) -> None:
        """Objects have no random access: each part of one would be a request."""

    async def check(self, files: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:  # noqa: ARG002
        """Check nothing: each request for an object names its version."""
        return []


@contextmanager
def _source_errors() -> Iterator[None]:
    # The dataset may be on the same S3. The error must name which of the two is unavailable.
    try:
        yield
    except StoreRefused as error:
        raise source_invalid(str(error), error.hint) from error
    except StoreUnavailable as error:
        raise SourceUnavailable(str(error), hint=error.hint, cause=error.cause) from error
