"""Paths that are no readable file: each ends in a sentence, and none is waited for."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardline.services.output_lock import locked_output
from shardline.services.wiring.stores import open_store_at
from shardline_common.errors import (
    JobFailed,
    ObjectExists,
    ObjectMissing,
    SourceUnavailable,
    StoreUnavailable,
    UsageError,
)
from shardline_common.runtime import paths
from shardline_common.runtime.atomic_file import AtomicFile
from shardline_common.settings.load import Settings
from shardline_common.storage.directory import DirectoryStore
from shardline_common.storage.s3 import S3Options, open_s3
from shardline_producer.sources.files import linked_folders, local_files
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import SourceItem
from tests.make import job, memory_pages

ROW = b'{"document_id": "a", "content": "x"}\n'


def source(root: Path, path: str, *, confined: bool = False) -> FileDocuments:
    return FileDocuments(
        job(source={"type": "files", "paths": [path]}), LocalFiles(root, confined), None, memory_pages()
    )


async def planned(root: Path, path: str, *, confined: bool = False) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        return await source(root, path, confined=confined).freeze()


async def read(root: Path, path: str, frozen: list[dict[str, Any]]) -> list[SourceItem]:
    async with asyncio.timeout(10):
        return [item async for batch in source(root, path).read(frozen, None) for item in batch]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def loop(path: Path) -> None:
    path.symlink_to(path)


ODD: list[tuple[Callable[[Path], object], str]] = [
    (fifo, "FIFO"),
    (bound_socket, "socket"),
    (Path.mkdir, "folder"),
    (loop, "symbolic links"),
    (lambda path: path.symlink_to("nowhere"), "No such file"),
    (lambda path: path.symlink_to("/dev/zero"), "device"),
]


@pytest.mark.parametrize("confined", [False, True])
@pytest.mark.parametrize(("make", "why"), ODD, ids=["fifo", "socket", "folder", "loop", "broken", "device"])
async def test_what_is_no_file_is_refused_at_planning(
    tmp_path: Path, make: Callable[[Path], object], why: str, confined: bool
) -> None:
    make(tmp_path / "odd.jsonl")
    (tmp_path / "sound.jsonl").write_bytes(ROW)
    for pattern in ("odd.jsonl", "o*.jsonl"):
        if why == "folder" and pattern != "odd.jsonl":
            why = "no file matches"
        with pytest.raises(JobFailed, match=rf"(?i){why}|outside of") as failed:
            await planned(tmp_path, pattern, confined=confined)
        assert failed.value.code == "source_invalid"


NAMES = [
    "a\0b.jsonl",
    "a\0*.jsonl",
    "**/\0",
    "x" * 5000,
    "x" * 5000 + "*",
    "d/" * 3000 + "x",
    "\ud800.jsonl",
    "\udcff*.jsonl",
    "/dev/stdin",
    "/dev/zero",
    "/proc/self/mem",
    "/proc/self/cmdline",
    "/proc/self",
    "/nonexistent/a.jsonl",
    ".",
    "..",
    "/",
    "~",
    "a\nb.jsonl",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
async def test_a_name_that_no_file_has_is_a_sentence(tmp_path: Path, name: str) -> None:
    # Its parent is a folder of this test alone: ".." must not walk the files of all other tests.
    root = tmp_path / "root"
    root.mkdir()

    async def find_and_read() -> None:
        async with asyncio.timeout(10):
            found = await LocalFiles(root, confined=False).find(name)
        await read(root, name, found or await planned(root, name))

    with pytest.raises(JobFailed) as failed:
        await find_and_read()
    assert failed.value.code == "source_invalid"
    text = f"{failed.value} {failed.value.hint}"
    assert text.isprintable()
    assert len(text) < 900
    text.encode()


@pytest.mark.parametrize("path", ["s3://b/\0", "s3://b/\ud800*", "s3://", "s3:///key", "s3://b"])
async def test_a_name_that_no_object_has_is_a_sentence(path: str) -> None:
    async with open_s3(S3Options("any")) as client:
        with pytest.raises(JobFailed) as failed:
            await S3Files(client).find(path)
    assert failed.value.code == "source_invalid"
    assert str(failed.value).isprintable()


async def test_a_file_whose_name_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.jsonl")).write_bytes(ROW)
    with pytest.raises(JobFailed, match=r"a\\udcff\.jsonl is not valid UTF-8") as failed:
        await planned(tmp_path, "*.jsonl")
    assert failed.value.code == "source_invalid"


@pytest.mark.parametrize("make", [fifo, bound_socket, Path.mkdir, loop, None])
async def test_a_file_that_becomes_something_else_has_changed(
    tmp_path: Path, make: Callable[[Path], object] | None
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(ROW)
    frozen = await planned(tmp_path, "a.jsonl")
    path.unlink()
    if make is not None:
        make(path)
    with pytest.raises(JobFailed) as failed:
        await read(tmp_path, "a.jsonl", frozen)
    assert failed.value.code in ("source_changed", "source_invalid")


async def test_a_file_that_becomes_a_pipe_while_it_is_opened_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regular, pipe = tmp_path / "regular", tmp_path / "pipe"
    regular.write_bytes(ROW)
    os.mkfifo(pipe)
    real = os.stat(regular)  # noqa: PTH116 - as the code calls it
    monkeypatch.setattr(os, "stat", lambda _: real)
    with pytest.raises(paths.NotRegularFile, match="FIFO"):
        await asyncio.wait_for(asyncio.to_thread(paths.open_regular, pipe), 10)


ERRORS = [
    (PermissionError(errno.EACCES, "Permission denied"), JobFailed),
    (OSError(errno.EIO, "Input/output error"), JobFailed),
    (OSError(errno.EMFILE, "Too many open files"), SourceUnavailable),
    (OSError(errno.ESTALE, "Stale file handle"), SourceUnavailable),
    (ValueError("embedded null byte"), JobFailed),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS)
async def test_errors_of_the_system_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROW)
    frozen = await planned(tmp_path, "a.jsonl")

    def fails(_: object) -> None:
        raise error

    for module, call in ((local_files, "open_regular"), (paths, "open_regular")):
        monkeypatch.setattr(module, call, fails)
    monkeypatch.setattr(local_files, "open_to_read", lambda path: asyncio.to_thread(fails, path))
    for reading in (planned(tmp_path, "a.jsonl"), read(tmp_path, "a.jsonl", frozen)):
        with pytest.raises(kind, match=r"a\.jsonl cannot be read"):
            await reading


async def test_an_error_in_mid_file_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROW)
    frozen = await planned(tmp_path, "a.jsonl")

    def fails(_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(local_files, "_read", fails)
    with pytest.raises(JobFailed, match="Input/output error") as failed:
        await read(tmp_path, "a.jsonl", frozen)
    assert failed.value.code == "source_invalid"


async def test_a_recursive_pattern_over_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / name).symlink_to(".")
    with pytest.raises(JobFailed, match="link to a folder above it") as failed:
        await planned(tmp_path, "in/**/*.jsonl")
    assert failed.value.code == "source_invalid"


async def test_a_recursive_pattern_follows_a_link_to_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jsonl").write_bytes(ROW)
    (tmp_path / "in" / "deep" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [file["path"] for file in await planned(tmp_path, "in/**/*.jsonl")] == ["in/deep/link/a.jsonl"]
    monkeypatch.setattr(linked_folders, "_MAX_FOLDERS", 2)
    with pytest.raises(JobFailed, match="more than 2 folders"):
        await planned(tmp_path, "in/**/*.jsonl")


async def test_the_roots_own_name_is_no_pattern(tmp_path: Path) -> None:
    root = tmp_path / "a[1]*"
    root.mkdir()
    (root / "a.jsonl").write_bytes(ROW)
    assert [file["path"] for file in await planned(root, "*.jsonl")] == ["a.jsonl"]
    assert [file["path"] for file in await planned(root, "**/*.jsonl")] == ["a.jsonl"]


@pytest.mark.parametrize("output", ["", "a\0b", "\ud800", "s3://", "s3:///prefix", "s3://b/\0"])
async def test_an_output_that_names_nothing_is_a_usage_error(output: str) -> None:
    with pytest.raises(UsageError) as refused:
        async with open_store_at(output, Settings(s3_bucket="another")):
            pass
    assert str(refused.value).isprintable()


def lock_folder(path: Path) -> Path:
    (path / ".shardline-lock").mkdir()
    return path


def looped(path: Path) -> Path:
    loop(path / "loop")
    return path / "loop"


def written(path: Path) -> Path:
    path.write_text("a file")
    return path


OUTPUTS: list[Callable[[Path], Path]] = [
    lambda folder: written(folder / "file"),
    lambda folder: written(folder / "file") / "below",
    lambda folder: folder / ("x" * 300),
    lambda folder: folder / ("x/" * 3000),
    lambda _: Path("/proc/nothing/here"),
    lambda _: Path("/dev/null"),
    lambda folder: folder / "a\0b",
    lock_folder,
    looped,
]


@pytest.mark.parametrize("make", OUTPUTS, ids=range(len(OUTPUTS)))
def test_an_output_that_cannot_be_made_is_a_usage_error(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(UsageError) as refused, locked_output(str(make(tmp_path))):
        pass
    text = f"{refused.value} {refused.value.hint}"
    assert "--output" in text
    assert text.isprintable()


def test_a_lock_that_is_a_pipe_or_has_no_locks_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / ".shardline-lock")
    folder = str(tmp_path)
    with locked_output(folder), pytest.raises(UsageError, match="another run"), locked_output(folder):
        pass

    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(UsageError, match="No locks available"), locked_output(str(tmp_path)):
        pass


def test_a_file_to_write_needs_a_name() -> None:
    for name in ("", ".", "/"):
        with pytest.raises(UsageError, match="names no file"):
            AtomicFile(Path(name))
    with pytest.raises(UsageError, match="null"), AtomicFile(Path("a\0b")) as file:
        file.write(b"x")


@pytest.mark.parametrize("make", [fifo, bound_socket, Path.mkdir, lambda path: path.symlink_to("nowhere")])
async def test_what_is_no_file_is_no_object_of_a_directory(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    store = DirectoryStore(tmp_path)
    make(tmp_path / "x")
    async with asyncio.timeout(10):
        with pytest.raises(ObjectMissing):
            await store.get("x")
        with pytest.raises(ObjectMissing):
            _ = [chunk async for chunk in store.stream("x")]
        _ = [info async for info in store.list("")]
        await store.delete(["x"])


async def test_errors_of_a_directory_are_those_of_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, looped_key = DirectoryStore(tmp_path / ("x" * 300)), DirectoryStore(tmp_path)
    loop(tmp_path / "loop")
    expected = (StoreUnavailable, ObjectMissing, ObjectExists)
    for store, key in ((long, "a"), (looped_key, "loop/a"), (DirectoryStore(Path("a\0b")), "a")):
        with pytest.raises(expected):
            await store.create(key, b"x")
        with pytest.raises(expected):
            await store.get(key)
        with pytest.raises(expected):
            await anext(store.stream(key))
    (tmp_path / "a").write_bytes(b"x")

    async def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(asyncio, "to_thread", fails)
    monkeypatch.setattr("shardline_common.storage.directory.open_to_read", fails)
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        await anext(looped_key.stream("a"))
