"""init writes a job that runs, and says in the file what it means; job explains every field."""

import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from shardline.cli.app import app
from shardline.cli.options import read_job
from shardline.services.first_job import write_new
from shardline.services.job_template import without_comments
from shardline_common.errors import JobFailed, ShardlineError, UsageError
from shardline_common.job.spec import parse_job

ROOT = Path(__file__).parents[2]
TEXT = "Das Gesetz über die Errichtung von Dachanlagen gilt für Bauherren und Behörden. " * 20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, id_name: str, text_name: str, **more: object) -> None:
    lines = [
        orjson.dumps({id_name: f"law-{number}", text_name: f"{number} {TEXT}", "title": "Baurecht"} | more)
        for number in range(40)
    ]
    Path(path).write_bytes(b"\n".join(lines))


def call(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=typed)


def raised(*arguments: str, kind: type[ShardlineError] = UsageError) -> ShardlineError:
    error = call(*arguments).exception
    assert isinstance(error, kind), error
    return error


def test_the_job_of_a_usual_file_is_the_plain_job() -> None:
    write("laws.jsonl", "document_id", "content")
    done = call("init", "laws.jsonl")
    assert done.stdout == "job.json\n"
    again = json.loads(call("init", "laws.jsonl", "--job", "b.json", "--json").stdout)
    assert (again["file"], again["job"]["name"]) == ("b.json", "laws")
    assert "40 documents were looked at: 40 are kept" in done.stderr
    assert "next: shardline run job.json" in done.stderr
    plain = {"name": "laws", "source": {"type": "files", "paths": ["laws.jsonl"]}}
    assert read_job(Path("job.json")) == parse_job(orjson.dumps(plain), default_id=True)
    text = Path("job.json").read_text()
    for word in ("// Its metadata: title\n", "40 documents", "validation_fraction", "shardline job"):
        assert word in text


def test_the_commented_fields_can_be_taken_into_the_job() -> None:
    write("laws.jsonl", "document_id", "content")
    call("init", "laws.jsonl")
    path = Path("job.json")
    path.write_text(path.read_text().replace('// "fields"', '"fields"'))
    spec = read_job(path)
    assert spec.source.type == "files"
    assert spec.source.fields.id == "uid"


def test_fields_of_other_names_are_found_and_the_job_runs() -> None:
    write("odd.jsonl", "uid", "body")
    call("init", "odd.jsonl")
    spec = read_job(Path("job.json"))
    assert spec.source.type == "files"
    assert (spec.source.fields.id, spec.source.fields.text) == ("uid", "body")
    found = json.loads(call("preview", "job.json", "--json").stdout)
    assert found["rows"] == 40


def test_a_first_job_has_rows_where_no_document_reaches_the_usual_score() -> None:
    write("short.jsonl", "document_id", "content")
    lines = [orjson.dumps({"document_id": str(number), "content": f"Satz {number}."}) for number in range(20)]
    Path("short.jsonl").write_bytes(b"\n".join(lines))
    call("init", "short.jsonl")
    assert read_job(Path("job.json")).quality.min_score == 0.0


def test_a_job_file_is_never_overwritten() -> None:
    write("laws.jsonl", "document_id", "content")
    Path("job.json").write_text("mine")
    assert raised("init", "laws.jsonl").hint == "name another file with --job"
    with pytest.raises(UsageError, match="exists"):
        write_new(Path("job.json"), "made meanwhile by another")
    assert Path("job.json").read_text() == "mine"
    assert call("init", "laws.jsonl", "--job", "other.json", "--name", "Meins").exit_code == 0
    assert read_job(Path("other.json")).name == "Meins"


@pytest.mark.parametrize(
    ("arguments", "kind", "named"),
    [
        (["away.jsonl"], JobFailed, "away.jsonl"),
        (["broken.jsonl"], JobFailed, "none of the first 3 documents can be read: invalid_json 3"),
        (["numbers.jsonl"], JobFailed, "a (number)"),
        (["laws.jsonl", "--query", "x"], UsageError, "--query"),
        (["themis", "--query", "x"], UsageError, "cannot search"),
        ([], UsageError, "only on a terminal"),
    ],
)
def test_what_cannot_be_a_job_is_refused_and_nothing_is_written(
    arguments: list[str], kind: type[ShardlineError], named: str
) -> None:
    write("laws.jsonl", "document_id", "content")
    Path("broken.jsonl").write_text("{broken\n" * 3)
    Path("numbers.jsonl").write_text('{"a": 1}\n' * 3)
    assert named in str(raised("init", *arguments, kind=kind))
    assert not Path("job.json").exists()


@pytest.mark.parametrize("kind", ["uds3", "themis"])
def test_a_store_gets_a_job_without_a_look_at_it(kind: str) -> None:
    query = ["--query", 'Bau"recht // x'] if kind == "uds3" else []
    assert call("init", kind, *query).exit_code == 0
    spec = read_job(Path("job.json"))
    assert spec.source.type == kind
    assert spec.query.text == (query[1] if query else None)


def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    write("laws.jsonl", "document_id", "content")
    monkeypatch.setattr("shardline.cli.first_job._is_terminal", lambda: True)
    done = call("init", typed="laws.jsonl\nMy laws\n")
    assert done.exit_code == 0, done.stderr
    assert read_job(Path("job.json")).name == "My laws"


def test_names_of_any_kind_stay_within_their_comment() -> None:
    write("laws [1].jsonl", "document_id", "content", **{'a\n"b": 1': "x", "*/": "y"})
    assert call("init", "laws [1].jsonl", "--job", "a b.json").exit_code == 0
    spec = read_job(Path("a b.json"))
    assert spec.source.type == "files"
    assert spec.source.paths == ["laws [1].jsonl"]
    assert "`shardline run 'a b.json'`" in Path("a b.json").read_text()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='/*"\\\n a'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='/*"\\ b'), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_JSON, st.text(alphabet='/"\\ x'), st.text(alphabet='/" x\n'))
def test_comments_are_left_out_and_texts_are_not(value: object, line: str, block: str) -> None:
    shown = json.dumps(value, indent=1).replace("\n", f" //{line}\n/*{block}*/ ")
    body = f"// {line}\n{shown} /* {block} */".encode()
    assert json.loads(without_comments(body)) == value
    assert without_comments(body).count(b"\n") == body.count(b"\n")
    plain = json.dumps(value).encode()
    assert without_comments(plain) == plain


def test_an_error_in_a_file_with_comments_names_its_line() -> None:
    Path("job.json").write_text('// one\n{"name": "x", // two\n "source": }')
    error = raised("preview", "job.json")
    assert "line 3" in str(error)


def test_job_prints_the_schema_and_every_field() -> None:
    assert call("job", "--schema").stdout == (ROOT / "docs" / "job.schema.json").read_text()
    text = call("job").stdout
    for field in ("quality.min_score: a number from 0 to 1", "source.fields.text: ", "query.filters: "):
        assert field in text
    rows = json.loads(call("job", "--json").stdout)
    assert all(row["meaning"] for row in rows)
    assert len({row["field"] for row in rows}) == len(rows) > 40


def test_a_file_in_another_encoding_gets_a_job_that_reads_it() -> None:
    lines = ["Aktenzeichen;Inhalt", *(f"AZ-{number};Die Behörde prüft. {TEXT}" for number in range(20))]
    Path("export.csv").write_bytes("\n".join(lines).encode("cp1252"))
    assert call("init", "export.csv").exit_code == 0
    spec = read_job(Path("job.json"))
    assert spec.source.type == "files"
    assert (spec.source.encoding, spec.source.fields.text) == ("cp1252", "Inhalt")
    assert json.loads(call("preview", "job.json", "--json").stdout)["rows"] == 20


@pytest.mark.parametrize("name", ["laws.jsonl", "laws.parquet", "laws.json", "folder"])
def test_documents_in_the_place_of_a_job_name_the_command_that_makes_one(name: str) -> None:
    bodies = {"laws.jsonl": b'{"a": 1}\n{"a": 2}\n', "laws.parquet": b"PAR1\xff", "laws.json": b'[{"a": 1}]'}
    if name in bodies:
        Path(name).write_bytes(bodies[name])
    else:
        Path(name).mkdir()
    error = raised("preview", name)
    assert f"`shardline init {name}` writes a job" in (error.hint or "")
    assert "surrogates" not in str(error)


def test_a_job_that_is_not_there_or_has_a_typo_is_no_file_of_documents() -> None:
    assert raised("run", "job.json").hint == "`shardline init FILES --job job.json` writes a job for files"
    Path("job.json").write_text('{"name": "a",}')
    error = raised("run", "job.json")
    assert "trailing comma" in str(error)
    assert error.hint is None
    Path("job.json").write_bytes('{"name": "ä"}'.encode("cp1252"))
    assert str(raised("run", "job.json")) == "the job is not UTF-8: its byte 10 is e4"


def test_a_job_with_a_byte_order_mark_is_read() -> None:
    write("laws.jsonl", "document_id", "content")
    body = b'{"name": "laws", "source": {"type": "files", "paths": ["laws.jsonl"]}}'
    Path("job.json").write_bytes(b"\xef\xbb\xbf" + body)
    assert read_job(Path("job.json")) == parse_job(body, default_id=True)


def test_the_job_names_the_fields_that_are_in_no_column() -> None:
    write("laws.jsonl", "document_id", "content", meta={"author": "A"}, links=["x"])
    call("init", "laws.jsonl")
    text = Path("job.json").read_text()
    assert "// Its metadata: title\n" in text
    assert "// In metadata.extra, as JSON: meta, links\n" in text
    assert read_job(Path("job.json")).name == "laws"
