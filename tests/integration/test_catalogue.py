"""datasets and diff: which datasets there are, and what differs between two of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from shardline import sync
from shardline.cli.app import app
from shardline_common.errors import JobFailed, ServiceUnavailable, UsageError


def command(*args: object) -> Result:
    return CliRunner().invoke(app, [*map(str, args)])


def made(name: str, job_id: str, texts: dict[str, str], **changes: Any) -> str:
    lines = [json.dumps({"document_id": one, "content": text}) for one, text in texts.items()]
    Path(f"{job_id}.jsonl").write_text("\n".join(lines) + "\n")
    source = {"type": "files", "paths": [f"{job_id}.jsonl"]}
    body = {"name": name, "job_id": job_id, "source": source, "quality": {"min_score": 0}, **changes}
    return sync.run(body).dataset


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


TEXTS = {f"d{number:03}": f"der Text Nummer {number}" for number in range(200)}


def test_datasets_lists_what_is_finished() -> None:
    first, second = made("laws", "laws-1", TEXTS), made("laws", "laws-2", TEXTS)
    other = made("cases", "cases-1", TEXTS)
    unfinished = made("laws", "laws-3", TEXTS)
    (Path(unfinished) / "_SUCCESS").unlink()
    damaged = made("laws", "laws-4", TEXTS)
    (Path(damaged) / "manifest.json").write_bytes(b"{")
    found = orjson.loads(command("datasets", "--json").stdout)
    assert [one["uri"] for one in found] == [str(Path(one).absolute()) for one in (other, first, second)]
    assert found[0]["rows"] == 200
    assert command("datasets", "laws", "--latest").stdout.strip() == str(Path(second).absolute())
    assert "cases-1" in command("datasets").stdout
    assert "laws-1" not in command("datasets", "cases").stdout


def test_nothing_there_is_a_sentence() -> None:
    assert command("datasets").exit_code == 0
    found = command("datasets", "laws", "--latest", "--in", "nowhere")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "no finished dataset laws in nowhere" in found.stderr


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_diff_counts_documents_by_what_became_of_them(compression: str) -> None:
    output = {"splits": {"train": 0.5, "validation": 0.5}, "compression": compression}
    old = made("laws", "old", TEXTS, output=output)
    texts = {**TEXTS, "d000": "another text", "new": "a new text", "empty": " "}
    del texts["d001"]
    other = made("laws", "new", texts, output={**output, "splits": {"train": 0.6, "validation": 0.4}})
    found = orjson.loads(command("diff", old, other, "--json").stdout)
    moved = found["documents"].pop("moved")
    assert 0 < moved < 60
    assert found["documents"] == {"added": 1, "removed": 1, "changed": 1, "same": 198 - moved}
    first = {kind: ids for kind, ids in found["first"].items() if kind != "moved"}
    assert first == {"added": ["new"], "removed": ["d001"], "changed": ["d000"]}
    assert (found["rows"], found["left_out"]) == ([200, 200], {"empty": [0, 1]})
    text = command("diff", old, other).stdout
    assert "only in the second" in text
    assert "d001" in text


def test_the_same_rows_in_other_shards_are_the_same() -> None:
    old = made("laws", "old", TEXTS, output={"order": {"seed": 1}})
    new = made("laws", "new", TEXTS, output={"order": {"seed": 2}, "compression": "gzip"})
    assert "the same rows: 200" in command("diff", old, new).stdout


def test_rows_of_one_id_are_compared_by_all_of_them() -> None:
    lines = [json.dumps({"document_id": "d", "content": text}) for text in ("one", "two", "two")]
    for name, some in (("old", lines), ("new", [*lines[:2], lines[0]]), ("less", lines[:2])):
        Path(f"{name}.jsonl").write_text("\n".join(some) + "\n")
        source = {"type": "files", "paths": [f"{name}.jsonl"]}
        sync.run({"name": "laws", "job_id": name, "source": source, "quality": {"min_score": 0}})
    for name in ("new", "less"):
        found = orjson.loads(command("diff", "datasets/laws/old", f"datasets/laws/{name}", "--json").stdout)
        assert found["documents"]["changed"] == 1


def test_a_damaged_shard_ends_a_diff() -> None:
    old = made("laws", "old", TEXTS)
    shutil.copytree(old, "broken")
    shard = next(Path("broken").glob("data/train/*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    found = command("diff", old, "broken")
    assert isinstance(found.exception, (JobFailed, ServiceUnavailable))
    assert shard.name in str(found.exception)
    assert isinstance(command("diff", old, "nowhere").exception, UsageError)
