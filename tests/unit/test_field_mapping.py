"""A job's field mapping: what it may say, and the document that it makes of fields."""

import copy
import json
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import JobInvalid
from shardline_common.job.field_mapping import parse_reference, pointer, reference
from shardline_common.job.spec import FilesSource, JobSpec
from shardline_producer.sources.documents import document_of, field_names, parse_document
from shardline_producer.sources.field_values import MISSING, compile_mapping, take, value_at
from shardline_producer.sources.source import Document, InvalidDocument
from tests.make import job


def mapped_job(flatten: list[str] | None = None, **fields: Any) -> JobSpec:
    return job(source={"type": "files", "paths": ["in.jsonl"], "fields": fields, "flatten": flatten or []})


def source(flatten: list[str] | None = None, **fields: Any) -> FilesSource:
    found = mapped_job(flatten, **fields).source
    assert isinstance(found, FilesSource)
    return found


def read(
    value: dict[str, Any], flatten: list[str] | None = None, **fields: Any
) -> Document | InvalidDocument:
    names = field_names(source(flatten, **fields))
    found = parse_document(json.dumps(value).encode(), "in.jsonl:1", names)
    # Rows of other formats come as fields, and become the same document.
    again = document_of(copy.deepcopy(value), "in.jsonl:1", json.dumps(value).encode(), names)
    assert again == found
    return found


def document(value: dict[str, Any], flatten: list[str] | None = None, **fields: Any) -> Document:
    found = read(value, flatten, **fields)
    assert isinstance(found, Document), found
    return found


@pytest.mark.parametrize(
    ("field", "text", "fault"),
    [
        ("text", "{{title|upper}}", "column 8: '|' in a template"),
        ("text", "{{title.upper()}}", "column 14: '(' in a template"),
        ("text", "{{ title or body }}", "column 9: ' ' in a template"),
        ("text", "{{#if title}}", "column 3: '#' in a template"),
        ("text", "abc {{title", "column 5: '{{' is not closed"),
        ("text", "{{title}} and body}}", "column 19: '}}' is no part of a template"),
        ("text", "{{title}}{% if x %}", "column 10: '{%' is no part"),
        ("text", "{{title}}{# note #}", "column 10: '{#' is no part"),
        ("text", "a{{}}", "column 4: {{}} needs the name of a field"),
        ("text", "{{{title}}}", "column 3: '{' in the name"),
        ("text", "{{title}} {{/a~b}}", "column 15: '~' in a JSON pointer"),
        ("text", "{title}\n{body}", "column 1: '{' in the name of a field; write {{name}}"),
        ("text", "/body/~", "column 7: '~' in a JSON pointer"),
        ("id", "/~2", "column 2: '~' in a JSON pointer"),
        ("id", "{{a}}", "column 1: '{' in the name of a field"),
        ("score", "/a/b~/c", "column 5: '~' in a JSON pointer"),
    ],
)
def test_a_fault_of_the_mapping_is_named_with_its_column(field: str, text: str, fault: str) -> None:
    with pytest.raises(JobInvalid) as refused:
        mapped_job(None, **{field: text})
    assert str(refused.value).startswith(f"source.fields.{field}: {fault}")


@pytest.mark.parametrize(
    ("flatten", "fault"),
    [
        (["author"], "'author' is no field within another"),
        (["/author"], "'/author' is no field within another"),
        (["/a/b", "/a/b"], "'/a/b' stands twice"),
        (["/a/b", "/a/b/c"], "lie in each other"),
        (["/meta/id"], "'/meta/id' is id, text or score already"),
        (["/a/~3"], "column 4: '~'"),
    ],
)
def test_a_fault_of_flatten_is_named(flatten: list[str], fault: str) -> None:
    with pytest.raises(JobInvalid) as refused:
        mapped_job(flatten, id="/meta/id")
    assert str(refused.value).startswith("source.flatten: ")
    assert fault in str(refused.value)


def test_names_and_pointers_are_found_and_leave_the_metadata() -> None:
    value = {
        "uid": "a",
        "body": {"text": "wort", "lang": "de"},
        "rating": {"value": 4},
        "content": "another",
        "document_id": "other",
        "score": 0.5,
    }
    found = document(value, id="uid", text="/body/text", score="/rating/value")
    rest = {"body": {"lang": "de"}, "content": "another", "document_id": "other", "score": 0.5}
    assert found == Document("a", "wort", rest, 4.0)


def test_only_what_is_mapped_changes_its_name() -> None:
    found = document({"uid": "a", "content": "wort", "score": 0.5, "document_id": 7}, id="uid")
    assert found == Document("a", "wort", {"document_id": 7}, 0.5)
    assert document({"document_id": "a", "body": "wort"}, text="body").text == "wort"


@pytest.mark.parametrize(
    ("path", "value", "rest"),
    [
        ("/a~1b/~0c", {"a/b": {"~c": "wort"}}, {}),
        ("/~01", {"~1": "wort", "/": 1}, {"/": 1}),
        ("/", {"": "wort", "x": 1}, {"x": 1}),
        ("/parts/1", {"parts": [1, "wort", 3]}, {"parts": [1, 3]}),
        ("/parts/0/text", {"parts": [{"text": "wort"}]}, {}),
        ("/1", {"1": "wort"}, {}),
        ("/hash", {"hash": "wort"}, {}),
        ("{{body}}", {"body": "wort"}, {}),
    ],
)
def test_a_pointer_follows_rfc_6901(path: str, value: dict[str, Any], rest: dict[str, Any]) -> None:
    found = document({"document_id": "a", **value}, text=path)
    assert (found.text, found.metadata) == ("wort", rest)


@pytest.mark.parametrize("path", ["/parts/3", "/parts/01", "/parts/-", "/parts/-1", "/parts/x", "/parts/²"])
def test_an_index_that_a_list_does_not_have_is_missing(path: str) -> None:
    found = read({"document_id": "a", "parts": ["0", "1", "2"]}, text=path)
    assert isinstance(found, InvalidDocument)
    assert (found.dead_letter.reason, found.dead_letter.hint) == (
        "no_content",
        f"in.jsonl:1: the document has no {path}",
    )


def test_id_and_text_of_one_list_are_both_removed() -> None:
    found = document({"row": ["a", "wort", 3], "n": 1}, id="/row/0", text="/row/1")
    assert (found.id, found.text, found.metadata) == ("a", "wort", {"row": [3], "n": 1})
    found = document({"row": [{"id": "a"}, "wort", {"x": 3}]}, ["/row/2/x"], id="/row/0/id", text="/row/1")
    assert (found.id, found.text, found.metadata) == ("a", "wort", {"x": 3})


def test_a_template_prints_scalars_and_keeps_its_fields() -> None:
    value = {"document_id": "a", "title": "T", "n": 7, "f": 1.5, "yes": True, "deep": {"x": "tief"}}
    text = "{{title}}\n\n{{ /deep/x }} {n} {{n}}{{f}} {{yes}}"
    found = document(copy.deepcopy(value), text=text)
    assert found.text == "T\n\ntief {n} 71.5 true"
    del value["document_id"]
    assert found.metadata == value


@pytest.mark.parametrize(
    ("value", "reason", "name"),
    [
        ({}, "missing_field", "/body/text"),
        ({"body": None}, "missing_field", "/body/text"),
        ({"body": {"text": None}}, "missing_field", "/body/text"),
        ({"body": {"text": ["x"]}}, "content_not_text", "/body/text"),
        ({"body": {"text": {}}, "title": "T"}, "content_not_text", "/body/text"),
        ({"body": {"text": "x"}, "title": None}, "missing_field", "title"),
    ],
)
def test_a_field_that_a_template_cannot_print_is_a_dead_letter(
    value: dict[str, Any], reason: str, name: str
) -> None:
    found = read({"document_id": "a", "title": "T", **value}, text="{{title}} {{/body/text}}")
    assert isinstance(found, InvalidDocument)
    assert found.dead_letter.reason == reason
    assert name in found.dead_letter.hint


def test_numbers_that_json_does_not_have_are_no_text() -> None:
    # JSON has none, Parquet does.
    names = field_names(source(text="{{n}} x"))
    found = document_of({"document_id": "a", "n": float("nan")}, "in.parquet:1", b"", names)
    assert isinstance(found, InvalidDocument)
    assert found.dead_letter.reason == "content_not_text"


def test_ids_are_made_of_the_text_or_of_the_line() -> None:
    value = {"id": "a", "body": "Dach\u00fcberstand"}
    found = document(dict(value), id="hash", text="body")
    assert found.id == blake2b("Dach\u00fcberstand".encode(), digest_size=16).hexdigest()
    assert (len(found.id), found.metadata) == (32, {"id": "a"})
    names = field_names(source(id="line", text="body")).in_file("/data/in:2/laws.jsonl", "2/laws.jsonl")
    line = document_of(dict(value), "/data/in:2/laws.jsonl:7", b"", names)
    assert isinstance(line, Document)
    assert (line.id, line.metadata) == ("2/laws.jsonl:7", {"id": "a"})
    found = document({"hash": "h", "line": "l", "content": "x"}, id="/hash")
    assert (found.id, found.metadata) == ("h", {"line": "l"})


@pytest.mark.parametrize(
    ("fields", "value", "reason", "hint"),
    [
        ({"id": "uid"}, {"content": "x"}, "missing_id", "the document has no uid"),
        ({"id": "uid"}, {"uid": 1.5, "content": "x"}, "bad_id", "uid must be text"),
        ({"id": "/m/id"}, {"m": {"id": None}, "content": "x"}, "missing_id", "the document has no /m/id"),
        ({"id": "/m/id"}, {"m": {"id": ""}, "content": "x"}, "bad_id", "/m/id must be text"),
        ({"text": "body"}, {"document_id": "a", "content": "x"}, "no_content", "the document has no body"),
        ({"text": "body"}, {"document_id": "a", "body": ["x"]}, "content_not_text", "body must be text"),
        ({"text": "/b/t"}, {"document_id": "a", "b": {"t": 5}}, "content_not_text", "/b/t must be text"),
        ({"text": "/b/t"}, {"document_id": "a", "b": {"t": "\ud800"}}, "lone_surrogate", "/b/t holds half"),
        ({"id": "hash", "text": "b"}, {"b": "\ud800"}, "lone_surrogate", "b holds half"),
    ],
)
def test_the_dead_letter_names_the_mapped_field(
    fields: dict[str, str], value: dict[str, Any], reason: str, hint: str
) -> None:
    found = read(value, None, **fields)
    assert isinstance(found, InvalidDocument)
    assert found.dead_letter.reason == reason
    assert hint in found.dead_letter.hint
    if reason != "lone_surrogate":
        assert found.fields == value


@pytest.mark.parametrize("score", [True, "0.7", None, [1], 1e301])
def test_a_score_that_is_no_number_is_0_and_stays(score: object) -> None:
    found = document({"document_id": "a", "content": "x", "m": {"s": score}}, score="/m/s")
    assert (found.relevance, found.metadata) == (0.0, {"m": {"s": score}})


def test_flatten_lifts_nested_values_to_the_top() -> None:
    value = {"document_id": "a", "content": "x", "meta": {"author": "Huber", "pages": 3, "tags": ["t"]}}
    found = document(value, ["/meta/author", "/meta/tags", "/meta/none", "/other/author"])
    assert found.metadata == {"meta": {"pages": 3}, "author": "Huber", "tags": ["t"]}
    assert document({**value, "meta": {"author": "Huber"}}, ["/meta/author"]).metadata == {"author": "Huber"}
    assert document({**value, "meta": {"author": None}}, ["/meta/author"]).metadata == {"author": None}


def test_a_lifted_value_takes_the_whole_path_where_its_name_is_taken() -> None:
    flatten = ["/meta/author", "/book/author"]
    value: dict[str, Any] = {"document_id": "a", "content": "x", "meta": {"author": 1}, "book": {"author": 2}}
    assert document(dict(value), flatten).metadata == {"author": 1, "book_author": 2}
    # The name of the second one does not depend on whether a document has the first one.
    del value["meta"]
    assert document(dict(value), flatten).metadata == {"book_author": 2}
    value = {"document_id": "a", "content": "x", "author": 0, "meta": {"author": 1}}
    assert document(dict(value), flatten).metadata == {"author": 0, "meta_author": 1}
    value["meta_author"] = 5
    found = document(dict(value), flatten).metadata
    assert found == {"author": 0, "meta_author": 5, "meta_author_2": 1}


def test_the_name_of_the_mapped_id_is_free_for_a_lifted_value() -> None:
    found = document({"id": "a", "content": "x", "meta": {"id": 5}}, ["/meta/id"], id="id")
    assert (found.id, found.metadata) == ("a", {"id": 5})


def test_the_default_mapping_written_out_is_the_job_without_it() -> None:
    spec = mapped_job(id="document_id", text="content", score="score")
    assert (spec.digest, spec.body()) == (job().digest, job().body())
    assert mapped_job(id="uid").digest != job().digest


def test_ids_that_came_as_numbers_are_marked() -> None:
    given: list[dict[str, str]] = [{}, {"id": "document_id", "text": "{{content}} "}]
    for fields in given:
        assert document({"document_id": 12, "content": "x"}, None, **fields).id_is_number
        assert not document({"document_id": "12", "content": "x"}, None, **fields).id_is_number


names = st.sampled_from(["a", "b", "a/b", "~", "~1", "", "0", "1", "hash", "{"])
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
)
paths = st.lists(names, min_size=1, max_size=4).map(tuple)


@given(paths)
def test_what_a_proposal_writes_is_read_back_as_the_same_path(path: tuple[str, ...]) -> None:
    assert parse_reference(pointer(path)) == path
    assert parse_reference(reference(path)) == path


def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value that is no object and no list, by its path."""
    children = value.items() if isinstance(value, dict) else enumerate(value)
    found: dict[tuple[str, ...], Any] = {}
    for name, child in children:
        inner = (*path, str(name))
        found |= leaves(child, inner) if isinstance(child, dict | list) else {inner: child}
    return found


@given(st.dictionaries(names, values, max_size=4), paths, paths, st.lists(paths, max_size=3, unique=True))
def test_no_value_is_lost_or_doubled(
    fields: dict[str, Any], identity: tuple[str, ...], text: tuple[str, ...], lifted: list[tuple[str, ...]]
) -> None:
    flatten = [pointer(path) for path in lifted]
    try:
        mapping = compile_mapping(source(flatten, id=pointer(identity), text=pointer(text)))
    except JobInvalid:
        return
    mapped = {path: found for path in {identity, text} if (found := value_at(fields, path)) is not MISSING}
    before = sorted(map(repr, leaves(fields).values()))
    gone = [] if any(isinstance(one, dict | list) for one in mapped.values()) else list(mapped.values())
    if len(gone) < len(mapped):
        return
    take(fields, mapping, scored=False)
    assert sorted([*map(repr, leaves(fields).values()), *map(repr, gone)]) == before


mappings = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["a", "/a/b", "/b/0", "hash", "line", "/"]),
        "text": st.sampled_from(["b", "/a/a", "/0/1", "{{a}}", "{{a}} {{/b/0}}", "/~0"]),
        "score": st.sampled_from(["0", "/a/0", "/a/b"]),
        "flatten": st.sampled_from([[], ["/a/1"], ["/b/0/a", "/a/a/a"]]),
    },
)


@given(st.dictionaries(names, values, max_size=4), mappings)
def test_any_fields_and_any_mapping_give_a_document_or_a_dead_letter(
    fields: dict[str, Any], mapping: dict[str, Any]
) -> None:
    found = read(fields, **mapping)
    if isinstance(found, Document):
        assert found.id
        assert isinstance(found.text, str)
    else:
        assert found.fields is not None
