"""Documents without the fields that the job names: what there is, and the mapping to paste."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shardline.services.preview import preview
from shardline.services.wiring.sources import source_factory
from shardline_common.errors import JobFailed
from shardline_common.job.field_mapping import parse_reference
from shardline_common.job.spec import FieldMapping, FilesSource, JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.settings.load import Settings
from shardline_producer import dead_letter_limits
from shardline_producer.sources.documents import document_of, field_names
from shardline_producer.sources.field_proposals import advice, describe, propose
from shardline_producer.sources.source import Document
from tests.make import job
from tests.support.embedded import run_embedded

LONG = "Der Bauantrag ist schriftlich zu stellen. " * 5


def rows(count: int = 20, /, **makers: Any) -> list[dict[str, Any]]:
    """Documents whose fields are made by functions of their number."""
    return [{name: make(number) for name, make in makers.items()} for number in range(count)]


def text(number: int) -> str:
    return f"{number}: {LONG}"


SHAPES: dict[str, tuple[list[dict[str, Any]], dict[str, str]]] = {
    "other names": (rows(uid=lambda n: n, body=text), {"id": "uid", "text": "body"}),
    "an id as text": (rows(id=str, title=lambda n: f"T{n}", text=text), {"id": "id", "text": "text"}),
    "a MongoDB export": (
        rows(_id=lambda n: {"$oid": f"{n:024x}"}, html=text, lang=lambda _: "de"),
        {"id": "/_id/$oid", "text": "html"},
    ),
    "a nested text": (
        rows(doc_id=str, meta=lambda n: {"title": f"T{n}"}, body=lambda n: {"text": text(n), "n": n}),
        {"id": "doc_id", "text": "/body/text"},
    ),
    "a web crawl": (
        rows(
            url=lambda n: f"https://a.de/{n}", date=lambda _: "2026-01-01", text=text, language=lambda _: "de"
        ),
        {"id": "url", "text": "text"},
    ),
    "no id, texts that differ": (rows(text=text, source=lambda _: "web"), {"id": "hash", "text": "text"}),
    "no id, texts that repeat": (rows(text=lambda _: LONG, n=lambda n: n), {"id": "line", "text": "text"}),
    "an id that repeats": (rows(id=lambda n: n % 3, text=text), {"id": "hash", "text": "text"}),
    "a long text beside a short one": (
        rows(id=str, text=lambda n: f"kurz {n}", description=text),
        {"id": "id", "text": "description"},
    ),
    "an id known by its values": (
        rows(aktenzeichen=lambda n: f"VG-{n}/25", amount=lambda n: n * 7, inhalt=text),
        {"id": "aktenzeichen", "text": "inhalt"},
    ),
    "a suffix": (rows(case_id=str, court_id=lambda n: n % 2, facts=text), {"id": "case_id", "text": "facts"}),
    "words that end in id": (rows(paid=lambda n: n, valid=str, text=text), {"id": "hash", "text": "text"}),
    "numbers that are no id": (rows(pages=lambda n: n, text=text), {"id": "hash", "text": "text"}),
    "the id is as it should be": (rows(document_id=str, body=text), {"text": "body"}),
    "the text is as it should be": (rows(content=text, key=lambda n: f"k{n}"), {"id": "key"}),
    "names that need a pointer": (
        rows(20, **{"/id": str, "{body}": text}),
        {"id": "/~1id", "text": "/{body}"},
    ),
    "a field named hash": (rows(hash=lambda n: f"{n:x}", text=text), {"id": "/hash", "text": "text"}),
    "one document": (rows(1, id=str, title=lambda n: f"T{n}", text=text), {"id": "id", "text": "text"}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_proposal_makes_documents_of_all(shape: str) -> None:
    documents, mapping = SHAPES[shape]
    assert propose(FieldMapping(), documents) == mapping
    source = FilesSource(type="files", paths=["in.jsonl"], fields=FieldMapping(**mapping))
    names = field_names(source)
    found = [document_of(dict(one), f"in.jsonl:{n}", b"", names) for n, one in enumerate(documents)]
    assert all(isinstance(one, Document) for one in found), found
    assert len({one.id for one in found if isinstance(one, Document)}) == len(documents)


def test_nothing_is_proposed_when_nothing_is_a_text() -> None:
    assert (
        propose(FieldMapping(), rows(id=str, when=lambda _: "2026-01-01", url=lambda n: f"https://a/{n}"))
        is None
    )
    assert propose(FieldMapping(), rows(id=lambda n: f"id-{n}", parts=lambda n: [text(n)])) is None
    assert propose(FieldMapping(id="uid", text="body"), rows(uid=str, body=text)) is None
    assert propose(FieldMapping(), [{}]) is None


def test_what_the_job_maps_rightly_is_kept() -> None:
    fields = FieldMapping(id="hash", text="content", score="stars")
    assert propose(fields, rows(id=str, body=text)) == {"id": "hash", "text": "body", "score": "stars"}
    fields = FieldMapping(id="uid", text="{{title}} {{body}}")
    assert propose(fields, rows(uid=str, text=text)) == {"id": "uid", "text": "text"}


def test_fields_are_listed_with_their_types_and_without_contents() -> None:
    documents = rows(
        2, n=lambda n: [n, 1.5][n], yes=lambda n: [True, "x"][n], a=lambda _: {"b/c": {"d": None}}
    )
    documents[1]["tags"] = ["geheim"]
    documents[1]["a\nb"] = "geheim"
    shown = describe(documents)
    assert shown == r"n (number), yes (boolean or text), /a/b~1c/d (null), tags (list), a\nb (text)"
    assert describe([]) == "none"
    many = describe([{f"{'k' * 200}{n}": n for n in range(1_000)}])
    assert len(many) < 2_500
    assert "and 280 more" in many


def test_a_long_source_is_not_repeated() -> None:
    source = FilesSource(type="files", paths=[f"folder/file-{n}.jsonl" for n in range(100)])
    shown = advice(source, rows(uid=str, body=text))
    assert shown == 'write this into `source` of the job: "fields": {"id": "uid", "text": "body"}'


def write(path: Path, documents: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in documents))


def spec_of(**source: Any) -> JobSpec:
    return job(source={"type": "files", "paths": ["in.jsonl"], **source}, quality={"min_score": 0})


async def failure(spec: JobSpec, folder: Path) -> str:
    """The message of a run, which a preview has too."""
    state = (await run_embedded(spec, MemoryStore(), folder)).state
    assert state.code == "all_dead"
    open_source = source_factory(Settings(), folder, confined=True, remote=None)
    with pytest.raises(JobFailed) as failed:
        await preview(spec, open_source, documents=10, seconds=60)
    assert f"{failed.value}; {failed.value.hint}" == state.message
    return state.message or ""


@pytest.mark.parametrize(
    "shape", ["a MongoDB export", "no id, texts that repeat", "names that need a pointer"]
)
async def test_a_job_takes_one_edit_from_the_error_to_the_dataset(shape: str, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", SHAPES[shape][0])
    message = await failure(spec_of(), tmp_path)
    pasted = re.search(r'write this into the job: "source": (\{.*\})$', message)
    assert pasted, message
    spec = spec_of(**json.loads(pasted[1]))
    state = (await run_embedded(spec, MemoryStore(), tmp_path)).state
    assert (state.state, state.dead, state.source_count) == ("completed", 0, len(SHAPES[shape][0]))


async def test_the_error_names_the_fields_that_there_are(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", rows(uid=lambda n: n, body=text, meta=lambda _: {"author": "Huber"}))
    message = await failure(spec_of(), tmp_path)
    assert message == (
        "all 20 documents are dead letters; the first: in.jsonl:1: the document has no document_id "
        "(missing_id); the fields that there are: uid (number), body (text), /meta/author (text); "
        "write this into the job: "
        '"source": {"type": "files", "paths": ["in.jsonl"], "fields": {"id": "uid", "text": "body"}}'
    )
    assert "Huber" not in message
    message = await failure(spec_of(fields={"id": "uid", "text": "{{title}} {{body}}"}), tmp_path)
    assert "the document has no title, which is in the template of the text (missing_field)" in message
    assert '"fields": {"id": "uid", "text": "body"}}' in message


async def test_a_field_of_another_type_is_seen_at_planning(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", rows(_id=lambda n: {"$oid": f"{n:024x}"}, body=lambda _: [LONG], text=text))
    message = await failure(spec_of(fields={"id": "_id", "text": "text"}), tmp_path)
    assert "_id must be text" in message
    assert '"fields": {"id": "/_id/$oid", "text": "text"}}' in message
    message = await failure(spec_of(fields={"id": "/_id/$oid", "text": "body"}), tmp_path)
    assert "body must be text (content_not_text)" in message
    assert '"fields": {"id": "/_id/$oid", "text": "text"}}' in message


async def test_without_a_proposal_the_hint_names_the_setting(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", rows(id=str, n=lambda n: n))
    message = await failure(spec_of(), tmp_path)
    assert message.endswith("(number); name the fields of id and text in source.fields of the job")


async def test_a_few_documents_without_the_field_are_dead_letters(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", rows(5, id=str, text=text) + rows(5, document_id=str, content=text))
    state = (await run_embedded(spec_of(), MemoryStore(), tmp_path)).state
    assert (state.state, state.dead) == ("completed", 5)


@pytest.mark.parametrize("others", [b"{\n", b"{}\n", b"\xff\n"])
async def test_a_few_other_faults_change_nothing(tmp_path: Path, others: bytes) -> None:
    write(tmp_path / "in.jsonl", rows(id=str, text=text))
    (tmp_path / "in.jsonl").write_bytes((tmp_path / "in.jsonl").read_bytes() + others)
    message = await failure(spec_of(), tmp_path)
    assert message.startswith("all 21 documents are dead letters; the first: in.jsonl:1: ")
    assert "the fields that there are: id (text), text (text); write this into the job: " in message
    assert '"fields": {"id": "id", "text": "text"}}' in message


async def test_where_other_faults_prevail_the_end_shows_the_mapping(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", rows(9, id=str, text=text))
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write("{\n" * 10)
    state = (await run_embedded(spec_of(), MemoryStore(), tmp_path)).state
    assert state.code == "all_dead"
    assert str(state.message).startswith("all 19 documents are dead letters; the first: in.jsonl:1: ")
    assert '"fields": {"id": "id", "text": "text"}}' in str(state.message)


async def test_the_first_ten_thousand_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_limits, "EARLY", 50)
    write(tmp_path / "in.jsonl", rows(60, id=str, text=text) + rows(60, document_id=str, content=text))
    message = await failure(spec_of(), tmp_path)
    assert message.startswith("the first 50 documents are all dead letters; the first: in.jsonl:1: ")


def test_a_mapping_is_shown_as_a_job_would_write_it() -> None:
    shown = advice(FilesSource(type="files", paths=["ä.jsonl"]), rows(größe_id=str, text=text))
    assert shown is not None
    assert '"paths": ["ä.jsonl"], "fields": {"id": "größe_id", "text": "text"}}' in shown
    assert parse_reference("größe_id") == ("größe_id",)


@pytest.mark.parametrize(
    ("more", "asked", "lowers"),
    [
        ({}, 0.5, True),
        ({}, 0.3, False),
        ({"title": "a", "domain": "b"}, 0.5, False),
        ({"title": "", "domain": None}, 0.5, True),
        ({"score": 1.0}, 0.5, False),
        ({"score": "high"}, 0.5, True),
    ],
)
def test_a_score_that_no_document_reaches_is_lowered_with_the_mapping(
    more: dict[str, Any], asked: float, lowers: bool
) -> None:
    source = FilesSource(type="files", paths=["a.jsonl"])
    documents = [{"uid": f"a{number}", "body": "some words " * 60, **more} for number in range(5)]
    shown = str(advice(source, documents, asked))
    pasted = re.search(r"write this into the job: (.*?\}\}?)(?: \(no document has .*\))?$", shown)
    assert pasted is not None, shown
    job = json.loads("{" + pasted[1] + "}")
    assert job["source"]["fields"] == {"id": "uid", "text": "body"}
    assert job.get("quality") == ({"min_score": 0.0} if lowers else None)
    assert ("no document has a higher quality score than 0.3" in shown) == lowers
