"""JSON arrays and pretty-printed documents: cut byte by byte, told apart from JSONL, refused when broken."""

import json
import tracemalloc
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import FailureCode, JobFailed
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.json_arrays import JsonSplitter
from shardline_producer.sources.files.lines import BrokenText, Line
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import Document, InvalidDocument
from tests.make import job, memory_pages
from tests.source_items import item_ids
from tests.unit.test_files_source import items, source, write

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(['"', "\\", "]}", ",["]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
INDENTS = st.sampled_from([None, 0, 2, "\t"])


def split(data: bytes, size: int, *, array: bool, number: int = 0, offset: int = 0) -> list[Line]:
    splitter = JsonSplitter(1 << 20, number, offset, array=array)
    found: list[Line] = []
    for start in range(offset, len(data), size):
        found += splitter.feed(data[start : start + size])
    return found + list(splitter.finish())


@given(st.lists(JSON, max_size=4), INDENTS, st.booleans(), st.integers(1, 7), st.booleans())
def test_elements_are_those_that_were_written(
    values: list[Any], indent: int | str | None, ascii_only: bool, size: int, array: bool
) -> None:
    def text(value: Any) -> str:
        return json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    data = (text(values) if array else "\n".join(map(text, values))).encode("utf-8", "surrogatepass")
    found = split(data, len(data) + 1, array=array)
    assert [json.loads(record.text.decode("utf-8", "surrogatepass")) for record in found] == values
    assert [record.number for record in found] == list(range(1, len(values) + 1))
    assert split(data, size, array=array) == found
    for done, record in enumerate(found, start=1):
        assert data[: record.end].endswith(record.text)
        assert split(data, size, array=array, number=record.number, offset=record.end) == found[done:]
    if array:
        for end in range(len(data.rstrip()) - 1):
            with pytest.raises(BrokenText):
                split(data[:end], size, array=True)


DOCUMENTS = [{"document_id": f"d{number}", "content": f"text {number}", "n": [number]} for number in range(4)]
LAYOUTS = {
    "compact": json.dumps(DOCUMENTS, separators=(",", ":")),
    "pretty": json.dumps(DOCUMENTS, indent=2) + "\n",
    "byte order mark": "\ufeff \n" + json.dumps(DOCUMENTS, indent=4),
    "a line each": "[\n" + ",\n".join(map(json.dumps, DOCUMENTS)) + "\n]\n",
    "commas in front": "[" + "\n,".join(map(json.dumps, DOCUMENTS)) + "]",
    "jq": "\n".join(json.dumps(document, indent=2) for document in DOCUMENTS),
    "in one line": "".join(map(json.dumps, DOCUMENTS)),
    "in two lines": " ".join(map(json.dumps, DOCUMENTS[:2])) + "\n" + "".join(map(json.dumps, DOCUMENTS[2:])),
    "long": json.dumps([{"document_id": "d0", "content": "x" * 300_000}, *DOCUMENTS[1:]]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a", "a.json.gz"])
async def test_a_json_file_is_read_and_resumed_at_every_element(
    tmp_path: Path, name: str, layout: str
) -> None:
    write(tmp_path / name, LAYOUTS[layout].encode())
    found = source(tmp_path, [name])
    everything = await items(found)
    assert item_ids(everything) == ["d0", "d1", "d2", "d3"]
    for number, item in enumerate(everything):
        assert await items(found, item.position) == everything[number + 1 :]


async def test_one_pretty_printed_document_is_a_file_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(DOCUMENTS[0], indent=2))
    (item,) = await items(source(tmp_path, ["a.json"]))
    assert item.content == Document("d0", "text 0", {"n": [0]})


JSONL = {
    "arrays": b"[1,2]\n[3,4]\n",
    "array, then object": b'[{"a": 1}]\n{"document_id": "a", "content": "b"}\n',
    "damaged first line": b'{"document_id": "a", "conte\n{"document_id": "b", "content": "b"}\n',
    "damaged array": b'[{"document_id": "a",\n{"document_id": "b", "content": "b"}\n',
    "open object": b'{"document_id": "a",\n{"document_id": "b", "content": "b"}\n',
    "infinity": b'{"document_id": "a", "content": "b", "n": NaN}\n{"document_id": "b", "content": "b"}\n',
    "two objects in the first line": b'{"document_id": "a"}{"b": 1}\n{"document_id": "b", "content": "b"}\n',
    "text behind an object": b'{"document_id": "a", "content": "b"} text',
    "one line": b'{"document_id": "a", "content": "b"}',
    "cut line": b'{"document_id": "a", "content": "',
}


@pytest.mark.parametrize("text", JSONL.values(), ids=list(JSONL))
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt"])
async def test_jsonl_stays_jsonl(tmp_path: Path, name: str, text: bytes) -> None:
    (tmp_path / name).write_bytes(text)
    (file,) = await source(tmp_path, [name]).freeze()
    assert "format" not in file


BROKEN = {
    "cut behind an element": ('[{"document_id": "a", "content": "b"}', "ends behind element 1 "),
    "cut inside": ('[{"document_id": "a", "content": "b"}, {"docu', "element 2, which begins at byte 39"),
    "no comma": (
        '[{"document_id": "a"}\n {"document_id": "b"}]',
        "'{' at byte 23 of its text, behind element 1",
    ),
    "comma at the end": ('[{"document_id": "a"},\n]', "']' at byte 23 of its text, where element 2 "),
    "two commas": ('[{"document_id": "a"},\n,{}]', "',' at byte 23"),
    "comma first": ("[\n,{}]", "',' at byte 2"),
    "text behind": ('[\n{"document_id": "a"}]\n[]', "'\\[' at byte 24 of its text, behind the end"),
    "wrong bracket": ('[\n{"document_id": ["a"}, {}]', "'}' at byte 22 .* in element 1 instead of ']'"),
}


@pytest.mark.parametrize("form", BROKEN)
async def test_a_broken_array_fails_and_names_the_place(tmp_path: Path, form: str) -> None:
    text, message = BROKEN[form]
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(JobFailed, match=message) as failed:
        await items(source(tmp_path, ["a.json"]))
    assert failed.value.code is FailureCode.SOURCE_INVALID
    assert failed.value.hint


async def test_the_job_says_the_form(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        '{"document_id": "a", "content": "b"} {"document_id": "b", "content": "b"}'
    )
    (tmp_path / "b.json").write_text('[{"document_id": "a", "content": "b"}]')
    as_json = job(source={"type": "files", "paths": ["a.txt"], "format": "json"})
    as_jsonl = job(source={"type": "files", "paths": ["b.json"], "format": "jsonl"})
    for spec, ids in ((as_json, ["a", "b"]), (as_jsonl, ["b.json:1"])):
        found = FileDocuments(spec, LocalFiles(tmp_path), None, memory_pages())
        assert item_ids(await items(found)) == ids


async def test_an_element_that_is_no_document_is_a_dead_letter(tmp_path: Path) -> None:
    elements = ["1", "null", '"a"', "[[]]", "{}", '{"document_id": "b", "content": "c"}', '{"x": nul}', "tru"]
    (tmp_path / "a.json").write_text("[" + ",\n".join(elements) + "]")
    (tmp_path / "b.json").write_text(" [ ] ")
    found = await items(source(tmp_path, ["a.json", "b.json"]))
    reasons = [
        item.content.dead_letter.reason if isinstance(item.content, InvalidDocument) else None
        for item in found
    ]
    broken = ["invalid_json"] * 2
    assert reasons == [*["not_an_object"] * 4, "missing_id", None, *broken]


WRAPPED = {
    "one line": json.dumps({"total": 4, "data": DOCUMENTS}),
    "pretty": json.dumps({"meta": {"page": [1]}, "data": DOCUMENTS}, indent=1),
    "long": json.dumps({"data": DOCUMENTS * 5000}, indent=1),
}


@pytest.mark.parametrize("layout", WRAPPED)
async def test_a_list_inside_of_an_object_is_refused_with_the_command(tmp_path: Path, layout: str) -> None:
    (tmp_path / "a.json").write_text(WRAPPED[layout])
    with pytest.raises(
        JobFailed, match='one JSON object, with a list of objects in its field "data"'
    ) as failed:
        await source(tmp_path, ["a.json"]).freeze()
    assert failed.value.hint == "make a line of each: jq -c '.data[]' a.json > documents.jsonl"


async def test_a_document_with_a_list_of_objects_is_no_wrapper(tmp_path: Path) -> None:
    for indent in (None, 2):
        text = json.dumps({"parts": [{"n": 1}], "document_id": "a", "content": "b"}, indent=indent)
        (tmp_path / "a.json").write_text(text)
        assert item_ids(await items(source(tmp_path, ["a.json"]))) == ["a"]


def test_a_large_element_is_not_held_in_memory() -> None:
    chunk = b"x" * (1 << 16)
    tracemalloc.start()
    splitter = JsonSplitter(1000, 0, 0, array=True)
    found = list(splitter.feed(b'[{"a": "'))
    for _ in range(200):
        found += splitter.feed(chunk)
    found += splitter.feed(b'"}, {"a": 1}]')
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    large, small = found
    assert large.digest == sha256(b'{"a": "' + chunk * 200 + b'"}').hexdigest()
    assert (large.size, small.text, small.digest) == (200 * (1 << 16) + 9, b'{"a": 1}', None)
    assert peak < 4 << 20
