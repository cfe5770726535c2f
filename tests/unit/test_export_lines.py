"""The fast ways of the exports give the bytes of the slow ones."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from shardline.gateway import exports
from shardline.gateway.export_formats import csv_line, without_metadata
from shardline.services.judging import LineJudge
from shardline_common.job.columns import infer
from shardline_common.job.plan import Plan
from shardline_producer.rows import escaped
from shardline_producer.sources.source import Document
from tests.make import job

_TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.lists(
        st.sampled_from(
            [
                ',"metadata":{',
                '},"source":',
                '"metadata":',
                '"',
                "\\",
                "{",
                "}",
                ",",
                "\n",
                "\r",
                "\x85",
                "a",
                " ",
            ]
        ),
        max_size=6,
    ).map("".join),
)
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 62), 1 << 62), st.floats(0, 1), _TEXTS)
_VALUES = st.one_of(_SCALARS, st.lists(_SCALARS, max_size=2), st.dictionaries(_TEXTS, _SCALARS, max_size=2))


@given(_TEXTS, st.dictionaries(st.one_of(_TEXTS, st.just("source")), _VALUES, max_size=4))
@example("a", {"source": "}", "b": {"source": 1}})
@example('},"source":,"metadata":{', {',"metadata":{': '},"source":'})
def test_a_row_without_metadata_is_what_json_gives(text: str, metadata: dict[str, Any]) -> None:
    document = Document("a", text, metadata)
    plan = Plan(frozen=[], columns=infer([document]).to_json(), rules=2)
    line = LineJudge(job(source={"type": "uds3"}, quality={"min_score": 0.0}), plan).line(document)
    if not isinstance(line, bytes):
        return
    row = orjson.loads(line)
    del row["metadata"]
    assert without_metadata(line) == escaped(orjson.dumps(row)) + b"\n"


@given(st.lists(_SCALARS, min_size=2, max_size=6))
@example(["a\rb", "a\nb", "a,b", 'a"b', " a ", "", None, True, -0.0, 1e22])
def test_a_csv_line_is_that_of_the_csv_module(cells: list[Any]) -> None:
    expected = io.StringIO(newline="")
    csv.writer(expected).writerow(cells)
    assert csv_line(cells) == expected.getvalue().encode()


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(1, 7), st.booleans())
def test_chunks_are_cut_into_whole_lines(sizes: list[int], step: int, ended: bool) -> None:
    whole = b"\n".join(b"x" * size for size in sizes) + b"\n" * ended

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), step):
            yield whole[start : start + step]

    async def batches() -> list[list[bytes]]:
        return [batch async for batch in exports.line_batches(chunks(), at_least=3)]

    found = asyncio.run(batches())
    assert [line for batch in found for line in batch] == whole.splitlines(keepends=True)
    assert all(line.endswith(b"\n") for batch in found[:-1] for line in batch)
