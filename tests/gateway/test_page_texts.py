"""The texts of the pages, without a browser."""

from pathlib import Path

import orjson

from shardline_common.job.names import Layout
from shardline_common.job.state import State
from tests.gateway.inprocess import gateway_in_memory
from tests.make import job


async def test_a_page_names_the_zone_and_shows_that_a_text_is_cut(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        spec = job(job_id="laws")
        rows = [
            {"document_id": "a", "text": text, "quality_score": 1, "relevance_score": 1, "metadata": {}}
            for text in ("x" * 600, "y" * 601)
        ]
        path = tmp_path / "rows"
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        await gateway.store.create(
            f"{Layout.of(spec).root}data/train/part-00000-000000000000.jsonl", path, content_type="text/plain"
        )
        path.write_bytes(
            orjson.dumps({"document_id": "<b>-1", "reason": "below_min_score", "scores": {}}) + b"\n"
        )
        await gateway.store.create(f"{Layout.of(spec).root}rejected/part-00000-000000000000.jsonl", path)
        await gateway.accepted(spec, State.FAILED, accepted_at="2026-11-29T08:00:00.000Z")
        page = (await gateway.call("GET", "/jobs/laws", "erika", headers={"accept": "text/html"})).text
        assert "2026-11-29 08:00:00 UTC" in page
        assert "x" * 600 + "<" in page
        assert "y" * 599 + "…<" in page
        # A narrow column breaks a name behind its signs.
        assert "<code>&lt;b&gt;-<wbr>1</code>" in page
        assert "<td>below_<wbr>min_<wbr>score</td>" in page
        # The job has ended: there is nothing to wait for.
        assert "so far" not in page
