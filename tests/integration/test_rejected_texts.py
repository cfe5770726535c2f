"""`quality.keep_rejected`: "reasons" is true, and only "full" keeps the text of each rejected document."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

import shardline
from shardline import errors
from shardline_common.errors import JobInvalid
from shardline_common.job.segment_limits import max_spool_bytes
from shardline_common.job.spec import parse_job
from shardline_consumer.filters.clara import Judge
from shardline_consumer.rejected_lines import RejectedLines
from shardline_producer.rows import escaped
from tests.make import job

TEXTS = [
    "short",
    "",
    " \t",
    'quotes " and \\ and \\" and {"text":"x"}',
    "line\nbreaks\r\u2028\u2029\u0085",
    "ü 日本 \U0001f600 \x01",
    '","metadata":{}',
    "\\",
    "a" * 3000,
]
ROWS = 6


@pytest.fixture
def body(tmp_path: Path) -> dict[str, Any]:
    lines = [{"document_id": f"rejected-{n}", "content": text} for n, text in enumerate(TEXTS)]
    good = {"title": "t", "domain": "d", "document_type": "x", "content": "Long enough to be kept. " * 90}
    lines += [{"document_id": f"kept-{n}"} | good for n in range(ROWS)]
    (tmp_path / "in.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return {
        "job_id": "laws",
        "name": "laws",
        "source": {"type": "files", "paths": [str(tmp_path / "in.jsonl")]},
        "quality": {"min_score": 0.5},
    }


def keeping(body: dict[str, Any], kept: object) -> dict[str, Any]:
    return body | {"quality": body["quality"] | {"keep_rejected": kept}}


def rejected(dataset: str) -> list[dict[str, Any]]:
    paths = sorted(Path(dataset, "rejected").glob("*.jsonl"))
    # By line feeds only, as readers of JSON lines do that split nowhere else.
    lines = [line for path in paths for line in path.read_bytes().split(b"\n") if line]
    assert all(escaped(line) == line for line in lines)
    return [json.loads(line) for line in lines]


async def test_full_keeps_the_texts_and_the_proof_covers_them(tmp_path: Path, body: dict[str, Any]) -> None:
    plain = await shardline.run(keeping(body, True), output=tmp_path / "plain")
    full = await shardline.run(keeping(body, "full"), output=tmp_path / "full")
    found = rejected(full.dataset)
    assert {one["document_id"]: one["text"] for one in found} == {
        f"rejected-{n}": text for n, text in enumerate(TEXTS)
    }
    without = [{name: value for name, value in one.items() if name != "text"} for one in found]
    assert without == rejected(plain.dataset)
    assert all(set(one) == {"document_id", "reason", "scores"} for one in rejected(plain.dataset))
    # The rows and their digest do not depend on it.
    assert full.digest == plain.digest
    assert (await shardline.verify(full.dataset)).ok
    [path] = [one for one in Path(full.dataset, "rejected").iterdir() if b"short" in one.read_bytes()]
    path.write_bytes(path.read_bytes().replace(b"short", b"shirt"))
    assert not (await shardline.verify(full.dataset)).ok


async def test_reasons_is_the_job_with_true(tmp_path: Path, body: dict[str, Any]) -> None:
    first = await shardline.run(keeping(body, True), output=tmp_path / "out")
    # The same job: it is accepted, and completed already.
    second = await shardline.run(keeping(body, "reasons"), output=tmp_path / "out")
    assert (first.dataset, first.digest) == (second.dataset, second.digest)
    with pytest.raises(errors.JobConflict, match="keep_rejected"):
        await shardline.run(keeping(body, "full"), output=tmp_path / "out")


def test_a_body_has_true_false_or_full() -> None:
    def dumped(kept: object) -> object:
        return orjson.loads(job(quality={"keep_rejected": kept}).body())["quality"]["keep_rejected"]

    assert [dumped(kept) for kept in (True, "reasons", False, "full")] == [True, True, False, "full"]
    assert job(quality={"keep_rejected": "reasons"}) == job(quality={"keep_rejected": True})
    assert job(quality={"keep_rejected": "reasons"}).digest == job(quality={"keep_rejected": True}).digest
    assert parse_job(job(quality={"keep_rejected": "full"}).body()).quality.keep_rejected == "full"
    with pytest.raises(JobInvalid, match="keep_rejected"):
        job(quality={"keep_rejected": "texts"})


def test_the_spool_has_room_for_the_texts() -> None:
    needs = [max_spool_bytes(job(quality={"keep_rejected": kept})) for kept in (False, True, "full")]
    assert needs[0] < needs[1] < needs[2]


@pytest.mark.parametrize("head", [b"", b'{"text":null,"metadata":', b'{"text":"cut', b"{}", b'{"text":"\\'])
def test_a_row_without_a_text_gives_null(head: bytes) -> None:
    verdict = Judge(0.5)(10, 0, 0, 0.0)
    line = RejectedLines(4, with_text=True).render(b"a", verdict, 0.0, head)
    assert orjson.loads(line)["text"] is None


def test_a_text_of_many_megabytes_needs_no_stack() -> None:
    text = '\\"' * (1 << 20)
    head = orjson.dumps({"text": text})[:-1] + b',"metadata":{}'
    line = RejectedLines(4, with_text=True).render(b"a", Judge(0.5)(10, 0, 0, 0.0), 0.0, head)
    assert orjson.loads(line)["text"] == text
