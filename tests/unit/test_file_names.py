"""Which files a path names: none is hidden, none is read twice, and none is read in the place of another."""

import errno
import glob
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline.services.local_run import run_warnings
from shardline_common.errors import JobFailed
from shardline_common.job.state import JobState
from shardline_common.ports.store import ObjectInfo
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.key_patterns import matching_keys, may_match
from shardline_producer.sources.files.linked_folders import matching_paths
from shardline_producer.sources.files.local_files import LocalFiles
from tests.make import job, memory_pages
from tests.source_items import item_ids


def write(path: Path) -> None:
    """A file with one row, whose id is the name of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps({"document_id": path.name, "content": "x"}))


def source(folder: Path, *paths: str) -> FileDocuments:
    spec = job(source={"type": "files", "paths": list(paths)})
    return FileDocuments(spec, LocalFiles(folder, confined=False), None, memory_pages())


async def names(folder: Path, *paths: str) -> list[str]:
    return [str(file["path"]) for file in await source(folder, *paths).freeze()]


class Denied:
    """Lets the system refuse to list a folder, or to look up what is in it, as it does for another user."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, *, listing: bool, entering: bool
    ) -> None:
        self._folder, self._listing, self._entering = str(folder), listing, entering
        for name in ("stat", "lstat", "open", "readlink"):
            monkeypatch.setattr(os, name, self._refusing(getattr(os, name)))
        monkeypatch.setattr(os, "scandir", self._listed(os.scandir))

    def _check(self, path: Any, *, listing: bool = False) -> None:
        text = os.path.normpath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""
        text = text.replace(str(Path(self._folder).parent / "link"), self._folder)
        if (self._entering and text.startswith(self._folder + "/")) or (listing and text == self._folder):
            raise PermissionError(errno.EACCES, "Permission denied", path)

    def _refusing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(path: Any, *more: Any, **named: Any) -> Any:
            self._check(path)
            return call(path, *more, **named)

        return refuse

    def _listed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def refuse(path: str) -> Iterator[Any]:
            self._check(path, listing=self._listing)
            with call(path) as found:
                yield [ListedEntry(entry, self._check) for entry in found]

        return refuse


class ListedEntry:
    """An entry of a folder. Whether a link leads to a folder is known only by entering that one's folder."""

    def __init__(self, entry: os.DirEntry[str], check: Callable[[str], None]) -> None:
        self.name, self.path, self._entry, self._check = entry.name, entry.path, entry, check

    def is_dir(self) -> bool:
        if self._entry.is_symlink():
            self._check(str(Path(self.path).parent / Path(self.path).readlink()))
        return self._entry.is_dir()


PATTERNS = [
    "*/*.jsonl",
    "*/a.jsonl",
    "**/*.jsonl",
    "**/a.jsonl",
    "**",
    "s*/*",
    "[so]*/a.jsonl",
    "secret/*.jsonl",
    "./secret/*",
    "*/deep/*.jsonl",
    "*/deep/a.jsonl",
    "*/*/a.jsonl",
    "**/deep/*.jsonl",
    "**/deep/a.jsonl",
    "*/**/a.jsonl",
    "secret/**/a.jsonl",
    "secret/deep/*.jsonl",
    "**/deep/**/a.jsonl",
    "open/../secret/*.jsonl",
    "link/*.jsonl",
    "l*/*.jsonl",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("how", ["not listed", "not entered", "neither"])
async def test_a_folder_that_may_not_be_searched_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, how: str
) -> None:
    for name in ("open", "secret"):
        write(tmp_path / name / "a.jsonl")
        write(tmp_path / name / "deep" / "a.jsonl")
    (tmp_path / "link").symlink_to("secret")
    whole = await names(tmp_path, pattern)
    if pattern[0] in "*[":
        assert any(name.startswith("open") for name in whole)
    listing, entering = how != "not entered", how != "not listed"
    Denied(monkeypatch, tmp_path / "secret", listing=listing, entering=entering)
    # A name of a folder that may be entered needs no list of it.
    needs_list = pattern not in (
        "*/a.jsonl",
        "[so]*/a.jsonl",
        "*/deep/*.jsonl",
        "*/deep/a.jsonl",
        "secret/deep/*.jsonl",
    )
    if how == "not listed" and not needs_list:
        assert await names(tmp_path, pattern) == whole
        return
    with pytest.raises(JobFailed, match=r"(secret|link).* cannot be read: Permission denied") as failed:
        await names(tmp_path, pattern)
    assert failed.value.code == "source_invalid"


async def test_a_link_to_what_may_not_be_entered_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "a.jsonl")
    write(tmp_path / "secret" / "deep" / "b.jsonl")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret" / "deep")
    assert await names(tmp_path, "in/**/*.jsonl") == ["in/a.jsonl", "in/link/b.jsonl"]
    Denied(monkeypatch, tmp_path / "secret", listing=False, entering=True)
    with pytest.raises(JobFailed, match="link cannot be read"):
        await names(tmp_path, "in/**/*.jsonl")


LITERAL: list[tuple[list[str], str, list[str]]] = [
    (["d[1].jsonl", "d1.jsonl"], "d[1].jsonl", ["d[1].jsonl"]),
    (["d1.jsonl"], "d[1].jsonl", ["d1.jsonl"]),
    (["what?.jsonl", "whatx.jsonl"], "what?.jsonl", ["what?.jsonl"]),
    (["*.jsonl", "a.jsonl"], "*.jsonl", ["*.jsonl"]),
    (["**", "a/b"], "**", ["**"]),
    (["d[1]/a.jsonl", "d1/a.jsonl"], "d[1]/*.jsonl", ["d[1]/a.jsonl"]),
    (["d[1]/a.jsonl", "d1/a.jsonl"], "d[1]/a.jsonl", ["d[1]/a.jsonl"]),
    (["d[1]/x", "d1/a.jsonl"], "d[1]/*.jsonl", ["d1/a.jsonl"]),
    (["*/a.jsonl", "b/a.jsonl"], "*/a.jsonl", ["*/a.jsonl"]),
    (["x/d[1].jsonl", "y/d1.jsonl"], "*/d[1].jsonl", ["x/d[1].jsonl", "y/d1.jsonl"]),
    (["a[].jsonl"], "a[].jsonl", ["a[].jsonl"]),
    (["a[!b].jsonl", "ac.jsonl"], "a[!b].jsonl", ["a[!b].jsonl"]),
]


@pytest.mark.parametrize(("there", "pattern", "found"), LITERAL, ids=range(len(LITERAL)))
async def test_a_name_that_exists_is_that_file(
    tmp_path: Path, there: Sequence[str], pattern: str, found: list[str]
) -> None:
    for name in there:
        write(tmp_path / name)
    assert await names(tmp_path, pattern) == found
    assert await names(tmp_path, str(tmp_path / pattern)) == [str(tmp_path / name) for name in found]
    if pattern != "**":
        assert sorted(matching_keys([key for key in there if may_match(key, pattern)], pattern)) == found


class Bucket:
    """A bucket with these keys."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys

    async def list_bucket(self, _: str, prefix: str) -> AsyncIterator[ObjectInfo]:
        for key in self._keys:
            if key.startswith(prefix):
                yield ObjectInfo(key, 1, '"1"')


async def test_a_key_that_exists_is_that_object() -> None:
    files = S3Files(Bucket(["in/d1", "in/d[1]", "in/d[1]/x"]))  # type: ignore[arg-type]
    assert [file["path"] for file in await files.find("s3://b/in/d[1]")] == ["s3://b/in/d[1]"]
    assert [file["path"] for file in await files.find("s3://b/in/d?")] == ["s3://b/in/d1"]
    assert [file["path"] for file in await files.find("s3://b/in/*")] == ["s3://b/in/d1", "s3://b/in/d[1]"]


Make = Callable[[Path], object]
SAME: dict[str, tuple[Make, list[str]]] = {
    "link": (lambda folder: (folder / "b.jsonl").symlink_to("a.jsonl"), ["a.jsonl", "b.jsonl"]),
    "hard link": (lambda folder: (folder / "b.jsonl").hardlink_to(folder / "a.jsonl"), ["*.jsonl"]),
    "link of a folder": (lambda folder: (folder / "x").symlink_to("."), ["a.jsonl", "x/a.jsonl"]),
    "dot": (lambda _: None, ["a.jsonl", "./a.jsonl"]),
    "above": (lambda folder: (folder / "x").mkdir(), ["a.jsonl", "x/../a.jsonl"]),
    "absolute": (lambda _: None, ["a.jsonl", "{}/a.jsonl"]),
    "relative": (lambda _: None, ["{}/a.jsonl", "a.jsonl"]),
    "absolute pattern": (lambda _: None, ["*.jsonl", "{}/*.jsonl"]),
}


@pytest.mark.parametrize("how", SAME)
async def test_a_file_with_two_names_is_read_once_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    write(tmp_path / "a.jsonl")
    make, paths = SAME[how]
    make(tmp_path)
    found = source(tmp_path, *(path.format(tmp_path) for path in paths))
    with caplog.at_level(logging.WARNING):
        frozen = await found.freeze()
    assert [file["path"] for file in frozen] == [frozen[0]["path"]]
    assert "it is read once" in caplog.text
    assert item_ids([item async for batch in found.read(frozen, None) for item in batch]) == ["a.jsonl"]
    notes = dict(found.declared(frozen).notes)
    assert len(notes["same_files"]) == 1
    assert "identity" not in frozen[0]
    [warning] = run_warnings(JobState(job(), notes=notes))
    assert warning.startswith("files with several names are read once: ")


async def test_a_path_behind_a_link_is_not_another_file(tmp_path: Path) -> None:
    write(tmp_path / "far" / "deep" / "x.jsonl")
    write(tmp_path / "far" / "a.jsonl")
    write(tmp_path / "root" / "a.jsonl")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "far" / "deep")
    root = tmp_path / "root"
    (tmp_path / "far" / "a.jsonl").write_text('{"document_id": "far", "content": "x"}\n')
    for paths in (["link/../a.jsonl", "a.jsonl"], ["l*/../a.jsonl", "a.jsonl"]):
        found = source(root, *paths)
        frozen = await found.freeze()
        items = [item async for batch in found.read(frozen, None) for item in batch]
        assert item_ids(items) == ["far", "a.jsonl"]


async def test_equal_copies_are_two_files(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl")
    shutil.copy2(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert await names(tmp_path, "*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert dict(source(tmp_path, "*").declared([]).notes) == {}


NAME = st.text("ab.", min_size=1, max_size=2).filter(lambda name: name not in (".", ".."))
PART = st.one_of(NAME, st.sampled_from(["*", "**", "a*", ".*", "?", "[ab]", "*b", ".", ".."]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120, deadline=None)
@given(
    st.lists(st.lists(NAME, min_size=1, max_size=3).map("/".join), max_size=6),
    st.lists(PART, min_size=1, max_size=4).map("/".join),
)
def test_patterns_match_what_those_of_python_match(
    tmp_path_factory: pytest.TempPathFactory, files: Sequence[str], pattern: str
) -> None:
    # Deeper than a pattern can climb by "..": what other tests write beside it is none of its files.
    root = tmp_path_factory.mktemp("tree") / "a/b/a/b"
    root.mkdir(parents=True)
    for name in files:
        try:
            write(root / name)
        except OSError:
            continue
    whole = f"{glob.escape(str(root))}/{pattern}"
    expected = glob.glob(whole, recursive=True)  # noqa: PTH207 - Path.glob has other patterns
    assert files_of(matching_paths(str(root), pattern)) == files_of(expected), (files, pattern)


def files_of(paths: Sequence[str]) -> set[str]:
    # `glob` lets a file `a` match `a/**`, as `a/`.
    return {os.path.realpath(path) for path in paths if Path(path).is_file() and not path.endswith("/")}
