"""A file that appears whole or not at all, on a disk that fills up."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardline.services.sample import write_sample
from shardline_common.errors import UsageError
from shardline_common.runtime.atomic_file import AtomicFile

LIMIT = 100_001


@pytest.fixture
def small_file_limit() -> Iterator[None]:
    """No file of this process may grow over the limit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def write(path: Path, pieces: int, error: BaseException | None = None) -> None:
    """Write so many pieces of 1,000 bytes, then raise the error."""
    with AtomicFile(path) as file:
        for _ in range(pieces):
            file.write(b"x" * 1000)
        if error is not None:
            raise error


@pytest.mark.usefixtures("small_file_limit")
@pytest.mark.parametrize("pieces", [LIMIT // 1000 + 1, LIMIT // 100])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, pieces: int) -> None:
    with pytest.raises(UsageError, match=r"rows\.jsonl cannot be written: File too large"):
        write(tmp_path / "rows.jsonl", pieces)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_file_limit")
@pytest.mark.parametrize("name", ["sample.jsonl", "sample.jsonl.gz", "sample.jsonl.zst"])
def test_a_sample_on_a_full_disk_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_sample(tmp_path / name, 3000)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writer_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"before\n")
    with pytest.raises(KeyboardInterrupt):
        write(path, 1, KeyboardInterrupt())
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]
    assert path.read_bytes() == b"before\n"
