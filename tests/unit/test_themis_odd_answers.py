"""ThemisDB: an odd value in a row, or in an answer, spoils no other row."""

import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import orjson
import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.job.columns import Columns
from shardline_producer.rows import RowRenderer
from tests.make import job
from tests.source_items import dead_letter_reasons, documents_of, item_ids
from tests.support.odd_answers import ODD, Path, paths, with_odd
from tests.themis_reading import ThemisJob, row
from tests.themis_server import HttpCall, ThemisServer, themis_server

_SHARE = 29
_ROWS = 3
Call = tuple[str, bytes]


@pytest.fixture
async def server() -> AsyncIterator[ThemisServer]:
    async with themis_server() as found:
        found.fill("documents", "doc_id", [row(number, list=["x"], score=0.5) for number in range(_ROWS)])
        yield found


async def true_answers(server: ThemisServer, *, lossless: bool) -> dict[Call, Any]:
    """The answers to the requests of a job, by request."""
    found: dict[Call, Any] = {}

    def note(request: HttpCall, body: bytes) -> bytes:
        found[request.path, request.body] = orjson.loads(body)
        return body

    server.altered = note
    assert len(await ThemisJob(server, lossless=lossless).items()) == _ROWS
    return found


def odd_rows(answer: dict[str, Any], path: Path) -> list[tuple[Path, str, bytes]]:
    """The row at a place of an answer with an odd value at each of its places: place, name, text as JSON."""
    text: Any = answer
    for part in path:
        text = text[part]
    fields = json.loads(text)
    found = []
    for inner in paths(fields):
        for name, odd in ODD.items():
            changed = with_odd(fields, inner, odd).decode(errors="surrogateescape")
            stored = json.dumps(changed, ensure_ascii=False).encode(errors="surrogateescape")
            found.append(((*path, *inner), name, with_odd(answer, path, stored)))
    return found


def altered_answers(answer: Any) -> list[tuple[Path, str, bytes]]:
    found = [(path, name, with_odd(answer, path, odd)) for path in paths(answer) for name, odd in ODD.items()]
    if "blob" in answer:
        found += odd_rows(answer, ("blob",))
    for number in range(len(answer.get("entities", []))):
        found += odd_rows(answer, ("entities", number))
    return found


@pytest.mark.parametrize("lossless", [True, False])
async def test_no_odd_value_ends_in_an_internal_error_or_loses_a_row(
    server: ThemisServer, lossless: bool
) -> None:
    turn, read, refused = count(), 0, 0
    for call, answer in (await true_answers(server, lossless=lossless)).items():
        for path, name, body in altered_answers(answer):
            if next(turn) % _SHARE:
                continue

            def alter(request: HttpCall, true: bytes, call: Call = call, body: bytes = body) -> bytes:
                return body if (request.path, request.body) == call else true

            server.altered = alter
            reading, case = ThemisJob(server, lossless=lossless), (call, path, name)
            try:
                items = await reading.items()
            except (SourceUnavailable, JobFailed) as error:
                refused += 1
                message = str(error)
            else:
                read, message = read + 1, "ThemisDB"
                assert item_ids(items) == [f"d-{number:05d}" for number in range(_ROWS)], case
                assert len(dead_letter_reasons(items)) <= 1, case
                renderer = RowRenderer(job(), Columns(reading.columns))
                assert all(renderer.render(one).head for one in documents_of(items))
            assert "ThemisDB" in message, case
    assert read > 20
    assert refused > 10


STORED = {
    r'{"doc_id": "d-00001", "content": "cut \ud83d"}': "lone_surrogate",
    '{"doc_id": "d-00001", "content": "t\udce4xt"}': "invalid_utf8",
    '{"doc_id": "d-00001", "content": NaN}': "invalid_json",
    f'{{"doc_id": "d-00001", "content": "x", "field": {ODD["deep"].decode()}}}': "too_deep",
    '{"doc_id": "d-00001", "content": "x", "field": 1e400}': "1e400",
    f'{{"doc_id": "d-00001", "content": "x", "field": {"7" * 400}}}': int("7" * 400),
    r'{"doc_id": "d-00001", "content": "x", "field": "\ud83d"}': "\ud83d",
}


@pytest.mark.parametrize(("stored", "expected"), STORED.items(), ids=[one[:60] for one in STORED])
async def test_an_odd_row_is_read_or_is_a_dead_letter_and_its_neighbours_are_whole(
    server: ThemisServer, stored: str, expected: Any
) -> None:
    def alter(request: HttpCall, body: bytes) -> bytes:
        if request.path != "/entities/documents:d-00001":
            return body
        text = json.dumps(stored, ensure_ascii=False).encode(errors="surrogateescape")
        return with_odd(orjson.loads(body), ("blob",), text)

    server.altered = alter
    items = await ThemisJob(server).items()
    assert item_ids(items) == [f"d-{number:05d}" for number in range(_ROWS)]
    found = {one.id: one for one in documents_of(items)}
    assert [found[name].text for name in ("d-00000", "d-00002")] == ["text 0", "text 2"]
    if "d-00001" in found:
        assert found["d-00001"].metadata["field"] == expected
    else:
        assert dead_letter_reasons(items) == {"d-00001": expected}
