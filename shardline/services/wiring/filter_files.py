"""The wiring of files that filters name: read as the files of a source are."""

from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.runtime.paths import shown_path
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_locations import BucketReader, FileLocation, is_remote
from shardline_producer.sources.files.local_files import LocalFiles

if TYPE_CHECKING:
    from shardline_common.job.filter_loading import FetchFile


def file_fetcher(root: Path, *, confined: bool, remote: BucketReader | None) -> "FetchFile":
    """Return what copies the files that filters name.

    Args:
        root: the folder from which relative paths start.
        confined: refuse files outside of `root`.
        remote: the client for `s3://` paths; None refuses them.
    """
    local = LocalFiles(root.absolute(), confined)
    remote_files = S3Files(remote) if remote is not None else None

    async def fetch(address: str, path: Path) -> None:
        location: FileLocation | None = remote_files if is_remote(address) else local
        if location is None:
            raise _invalid(f"'{shown_path(address)}' cannot be read here: this process has no client for S3")
        found = await location.find(address)
        if len(found) != 1:
            raise _invalid(f"'{shown_path(address)}' is {len(found)} files, a filter needs one")
        with await run_in_thread(partial(_opened, path)) as file:
            async with aclosing(location.stream(found[0], 0)) as chunks:
                async for chunk in chunks:
                    await run_in_thread(partial(file.write, chunk))

    return fetch


def _opened(path: Path) -> BinaryIO:
    return path.open("wb")


def _invalid(message: str) -> JobFailed:
    return JobFailed(
        FailureCode.SOURCE_INVALID,
        f"a file of a filter: {message}",
        hint="name one file that every worker can read, for example on S3",
    )
