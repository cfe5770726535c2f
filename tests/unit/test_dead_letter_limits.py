"""A job of which all documents, or too large a share of them, cannot be read fails, and says why."""

import json
from pathlib import Path
from typing import Any

import pytest

from shardline.services.local_run import run_warnings
from shardline_common.dataset.card import dataset_card
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_producer import dead_letter_limits
from tests.make import job
from tests.support.embedded import run_embedded

GOOD = json.dumps({"document_id": "d", "content": "wort " * 100})
BAD = '{"id": "d", "body": "wort"}'


def files(**quality: Any) -> JobSpec:
    return job(source={"type": "files", "paths": ["in.jsonl"]}, quality={"min_score": 0, **quality})


async def outcome(folder: Path, lines: list[str], **quality: Any) -> tuple[str | None, str]:
    """The code and the message of a job over lines."""
    (folder / "in.jsonl").write_text("\n".join(lines))
    state = (await run_embedded(files(**quality), MemoryStore(), folder)).state
    assert (state.state == "completed") == (state.code is None)
    return state.code, state.message or ""


@pytest.mark.parametrize("count", [1, 50])
async def test_a_job_of_which_all_documents_are_dead_letters_fails(tmp_path: Path, count: int) -> None:
    code, message = await outcome(tmp_path, [BAD] * count, max_dead_letter_ratio=1)
    assert code == "all_dead"
    assert f"all {count} documents are dead letters; the first: in.jsonl:1: " in message
    assert "has no document_id (missing_id)" in message


@pytest.mark.parametrize(
    ("good", "bad", "ratio", "code"),
    [
        (89, 11, 0.1, "too_many_dead_letters"),
        (90, 10, 0.05, None),
        (99, 11, 0.1, None),
        (10, 9, 0.1, None),
        (10, 12, 0.6, None),
        (1, 11, 0.9, "too_many_dead_letters"),
    ],
)
async def test_too_large_a_share_fails_at_the_end(
    tmp_path: Path, good: int, bad: int, ratio: float, code: str | None
) -> None:
    found, message = await outcome(tmp_path, [BAD] * bad + [GOOD] * good, max_dead_letter_ratio=ratio)
    assert found == code
    if code:
        assert f"{bad} of {good + bad} documents are dead letters" in message
        assert "raise quality.max_dead_letter_ratio" in message
        assert "in.jsonl:1: " in message


async def test_a_retry_of_such_a_job_fails_again(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join([BAD] * 50))
    store = MemoryStore()
    for attempt in (1, 2):
        state = (await run_embedded(files(), store, tmp_path)).state
        assert (state.attempt, state.code) == (attempt, "all_dead")


@pytest.mark.parametrize(
    ("first_usable", "fails_early"), [(None, True), (120, True), (101, True), (100, False), (7, False)]
)
async def test_only_a_beginning_that_is_all_dead_fails_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_usable: int | None, *, fails_early: bool
) -> None:
    # The first batch of the source has 1,000 lines, so the limit lies within it.
    monkeypatch.setattr(dead_letter_limits, "EARLY", 100)
    lines = [BAD] * 400
    if first_usable is not None:
        lines[first_usable - 1 :] = [GOOD] * (400 - first_usable + 1)
    code, message = await outcome(tmp_path, lines, max_dead_letter_ratio=1)
    assert code == ("all_dead" if fails_early else None)
    assert not fails_early or "the first 100 documents are all dead letters" in message


async def test_only_filters_are_blamed_for_what_filters_did(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("")
    store = MemoryStore()
    view = await run_embedded(files(), store, tmp_path)
    assert view.state.state == "completed"
    card = (await store.get("test/test/README.md")).decode()
    assert "the source has no document" in card
    manifest = json.loads(await store.get("test/test/manifest.json"))
    manifest["totals"]["documents"] = 3
    assert "no document passed the filters" in dataset_card(manifest)


async def test_a_source_whose_documents_the_query_left_out_is_not_called_empty(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(GOOD)
    store = MemoryStore()
    paths = {"type": "files", "paths": ["in.jsonl"]}
    spec = job(source=paths, query={"filters": {"document_id": "other"}})
    view = await run_embedded(spec, store, tmp_path)
    assert run_warnings(view.state) == ["empty: no document of the source passed query.filters"]
    card = (await store.get("test/test/README.md")).decode()
    assert "no document of the source passed query.filters" in card
