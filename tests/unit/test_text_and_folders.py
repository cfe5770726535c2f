"""Text files, each of them a document, and folders with files of several forms."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from shardline_common.errors import JobFailed
from shardline_common.ports.store import ObjectInfo
from shardline_producer.sources.documents import text_id
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.files.text_files import TextSplitter
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem
from tests.make import job, memory_pages
from tests.source_items import item_ids
from tests.unit.test_files_source import items, line, source, write

TEXT = "# Law\r\n\r\n§ 1 says {this}.\n---\n| a | b |\n"


class Bucket:
    """Implements `BucketReader` in memory; lists in no order."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = objects

    async def list_bucket(self, bucket: str, prefix: str) -> AsyncIterator[ObjectInfo]:
        """The objects below a prefix."""
        assert bucket == "b"
        for key in reversed(list(self.objects)):
            if key.startswith(prefix):
                yield ObjectInfo(key, len(self.objects[key]), f"etag-{key}")

    async def stream_object(
        self, bucket: str, key: str, *, offset: int, etag: str, size: int
    ) -> AsyncIterator[bytes]:
        """The bytes of an object, 7 at a time."""
        assert (bucket, etag, size) == ("b", f"etag-{key}", len(self.objects[key]))
        data = self.objects[key]
        for start in range(offset, len(data), 7):
            yield data[start : start + 7]


def fill(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def documents(found: list[SourceItem]) -> dict[str, str]:
    return {item.content.id: item.content.text for item in found if isinstance(item.content, Document)}


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.MARKDOWN", "a.rst", "a.txt.gz", "a.txt.zst", "README"])
async def test_a_text_file_is_a_document(tmp_path: Path, name: str) -> None:
    (tmp_path / "in" / "x").mkdir(parents=True)
    write(tmp_path / "in" / "x" / name, b"\xef\xbb\xbf" + TEXT.encode())
    for pattern, identity in ((f"in/x/{name}", name), ("in", f"x/{name}"), ("in/*/*", f"x/{name}")):
        found = source(tmp_path, [pattern])
        (item,) = await items(found)
        assert item.content == Document(identity, TEXT, {})
        assert await items(found, item.position) == []


FORMS_BY_CONTENT = {
    "jsonl": (line(0) + b"\n\n" + line(1), ["d0", "d1"]),
    "damaged jsonl": (b'{"document_id": "d0", "c\n' + line(1), ["x:1", "d1"]),
    "json": (json.dumps([json.loads(line(0))], indent=2).encode(), ["d0"]),
    "code in text": (b"Use this:\n\n" + line(0) + b"\nand no more.\n", ["x"]),
    "brackets": (b"[1] See there.\n[2] And there.\n", ["x"]),
    "nothing": (b"", ["x"]),
    "blanks": (b" \n\t", ["x"]),
    "not UTF-8": ("ä\n".encode() * 200 + b"Stra\xdfe\n", ["x:1"]),
}


@pytest.mark.parametrize("form", FORMS_BY_CONTENT)
async def test_the_content_of_a_text_file_decides_before_its_name(tmp_path: Path, form: str) -> None:
    data, ids = FORMS_BY_CONTENT[form]
    (tmp_path / "x.txt").write_bytes(data)
    expected = [name.replace("x", "x.txt") for name in ids]
    assert item_ids(await items(source(tmp_path, ["x.txt"]))) == expected


async def test_the_job_says_that_each_file_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(line(0))
    spec = job(source={"type": "files", "paths": ["a.jsonl"], "format": "text"})
    found = await items(FileDocuments(spec, LocalFiles(tmp_path), None, memory_pages()))
    assert documents(found) == {"a.jsonl": line(0).decode()}


async def test_ids_of_texts_are_made_and_differ(tmp_path: Path) -> None:
    fill(tmp_path, {"a/x.txt": b"one", "b/x.txt": b"two", "b/y.txt": b"two"})
    for identity, ids in (
        ("document_id", ["a/x.txt", "b/x.txt", "y.txt"]),
        ("line", ["a/x.txt:1", "b/x.txt:1", "y.txt:1"]),
        ("hash", [text_id("one"), text_id("two"), text_id("two")]),
    ):
        fields = {"id": identity, "text": "{{title}}: {{body}}"}
        spec = job(source={"type": "files", "paths": ["a/*.txt", "b"], "fields": fields})
        found = await items(FileDocuments(spec, LocalFiles(tmp_path), None, memory_pages()))
        assert item_ids(found) == ids


async def test_texts_that_cannot_be_documents_are_dead_letters(tmp_path: Path) -> None:
    fill(tmp_path, {"in/a.txt": b"x" * 2000, "in/" + "/".join(["y" * 200] * 6) + "/b.txt": b"b"})
    found = await items(source(tmp_path, ["in"], max_document_bytes=1024))
    letters = [item.content.dead_letter for item in found if isinstance(item.content, InvalidDocument)]
    assert [letter.reason for letter in letters] == ["too_large", "bad_id"]
    assert letters[0].size == 2000


def test_a_text_does_not_depend_on_chunks() -> None:
    for size in (1, 3, 100):
        splitter, data = TextSplitter(20, 0, 0), b"a\nb" * 20
        for start in range(0, len(data), size):
            assert list(splitter.feed(data[start : start + size])) == []
        (record,) = splitter.finish()
        whole = TextSplitter(20, 0, 0)
        whole.feed(data)
        assert [record] == list(whole.finish())
        assert (record.size, record.text) == (60, data)


FOLDER = {
    "in/a/1.jsonl": line(0),
    "in/a-b.txt": b"a text",
    "in/a/sub/2.json": b"[" + line(1) + b"," + line(2) + b"]",
    "in/B.md": b"# B",
    "in/\u00e4.txt": b"umlaut",
    "in/\uff5e.txt": b"tilde",
    "in/\U0001f600.txt": b"face",
}
MARKERS = {
    "in/.hidden.txt": b"x",
    "in/.git/a.txt": b"x",
    "in/_SUCCESS": b"",
    "in/a/.1.jsonl.crc": b"crc",
    "in/a/1.jsonl.crc": b"crc",
    "in/_delta_log/0.json": b"{}",
    "in/_temporary/0/a.jsonl": b"{}",
    "in/_committed_12": b"",
}
IN_ORDER = ["B.md", "a-b.txt", "d0", "d1", "d2", "\u00e4.txt", "\uff5e.txt", "\U0001f600.txt"]


async def test_a_folder_is_read_in_the_byte_order_of_its_paths(tmp_path: Path) -> None:
    fill(tmp_path, FOLDER | MARKERS | {"other.txt": b"x", "input/x.txt": b"x"})
    (tmp_path / "in" / "empty").mkdir()
    for path in ("in", "in/", "./in", str(tmp_path / "in")):
        found = source(tmp_path, [path])
        everything = await items(found)
        assert item_ids(everything) == IN_ORDER
        for number, item in enumerate(everything):
            assert await items(found, item.position) == everything[number + 1 :]


@pytest.mark.parametrize("path", ["s3://b/in/", "s3://b/"])
async def test_a_prefix_on_s3_is_read_as_a_folder_is(tmp_path: Path, path: str) -> None:
    objects = FOLDER | MARKERS | {"in/": b"", "in/a/": b""}
    spec = job(source={"type": "files", "paths": [path]})
    bucket = Bucket(objects if path == "s3://b/" else objects | {"input/x.txt": b"x", "other.txt": b"x"})
    found = FileDocuments(spec, LocalFiles(tmp_path), S3Files(bucket), memory_pages())
    texts = [name if path == "s3://b/in/" or name[0] == "d" else f"in/{name}" for name in IN_ORDER]
    assert item_ids(await items(found)) == texts


class SlowBucket(Bucket):
    """Counts the objects that are read at once, and the bytes of each."""

    open = most = 0
    longest = 0

    async def stream_object(
        self,
        bucket: str,  # noqa: ARG002
        key: str,
        *,
        offset: int,
        etag: str,  # noqa: ARG002
        size: int,
    ) -> AsyncIterator[bytes]:
        """The bytes of an object, 64 KiB at a time, each after a turn of the other readers."""
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            for start in range(offset, size, 1 << 16):
                self.longest = max(self.longest, start + (1 << 16))
                await asyncio.sleep(0)
                yield self.objects[key][start : start + (1 << 16)]
        finally:
            self.open -= 1


async def test_first_bytes_are_read_together_and_no_more_than_needed(tmp_path: Path) -> None:
    bucket = SlowBucket({f"in/{number:02}.txt": b"x" * (1 << 20) for number in range(50)})
    spec = job(source={"type": "files", "paths": ["s3://b/in/"]})
    frozen = await FileDocuments(spec, LocalFiles(tmp_path), S3Files(bucket), memory_pages()).freeze()
    assert [file["path"] for file in frozen] == [f"s3://b/in/{number:02}.txt" for number in range(50)]
    assert 1 < bucket.most <= 16
    assert bucket.open == 0
    assert bucket.longest == 1 << 18


async def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    fill(tmp_path, {"in/_SUCCESS": b""})
    with pytest.raises(JobFailed, match="the folder in holds no files") as failed:
        await source(tmp_path, ["in"]).freeze()
    assert failed.value.code == "source_invalid"
    spec = job(source={"type": "files", "paths": ["s3://b/in/"]})
    empty = FileDocuments(spec, LocalFiles(tmp_path), S3Files(Bucket({"in/": b""})), memory_pages())
    with pytest.raises(JobFailed, match="no file matches 's3://b/in/'"):
        await empty.freeze()


async def test_links_in_a_folder_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path, {"in/a.txt": b"a", "other/b.txt": b"b"})
    (tmp_path / "in" / "c.txt").symlink_to("a.txt")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "other")
    found = source(tmp_path, ["in", "in/a.txt"])
    frozen = await found.freeze()
    assert [file["path"] for file in frozen] == ["in/a.txt", "in/link/b.txt"]
    assert found.declared(frozen).notes == {"same_files": ["in/c.txt is in/a.txt"]}
    (tmp_path / "in" / "loop").symlink_to(".")
    with pytest.raises(JobFailed, match="link to a folder above it"):
        await found.freeze()


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/self", "/dev"])
async def test_a_folder_of_the_system_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(JobFailed, match="a folder of the system"):
        await source(tmp_path, [path], confined=False).freeze()
