"""The audit log says what was answered, in lines of bounded length; strangers do not fill the log."""

import asyncio
import logging
from pathlib import Path

import pytest

from tests.gateway.inprocess import gateway_in_memory
from tests.gateway.test_audit import completed


async def test_strangers_do_not_fill_the_log_with_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def answered() -> int:
        return sum(record.getMessage() == "answered" for record in caplog.records)

    caplog.set_level(logging.INFO, "shardline.gateway")
    async with gateway_in_memory(tmp_path) as gateway:
        for path in ("/", "/nothing", "/openapi.json", "/static/page.css", "/api/datasets/"):
            for method in ("GET", "POST", "TRACE"):
                for _ in range(20):
                    await gateway.call(method, path)
        assert 60 <= answered() <= 120
        caplog.clear()
        # Those of users are logged whatever strangers do.
        for _ in range(30):
            await gateway.call("GET", "/api/datasets", "erika")
        assert answered() == 30


async def test_the_audit_log_has_the_path_and_no_more_of_it_than_fits(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        for path in ("/api/datasets/a\nb", f"/api/datasets/{'x' * 20_000}"):
            await gateway.call("GET", path)
        await gateway.call("GET", f"/api/datasets/{'x' * 20_000}/files/a?expires=1&signature=0")
        first, *long = gateway.audit()
        assert (first["action"], first["dataset"]) == ("GET /api/datasets/a\nb", "a\nb")
        assert len(long) == 2
        assert all(len(str(line)) < 1_500 for line in long)


async def test_a_redirect_keeps_the_scheme_and_the_host_of_the_client(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        for path, target in {
            "/api/datasets/?limit=5": "/api/datasets?limit=5",
            "/jobs/x/": "/jobs/x",
            "/health/": "/health",
        }.items():
            found = await gateway.call("GET", path, headers={"host": "elsewhere.example.org"})
            assert (found.status, found.headers["location"]) == (307, target)


async def test_a_download_that_gets_no_slot_is_not_audited_as_sent(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path, gateway_streams_per_user=2) as gateway:
        await completed(gateway)
        path = "/api/datasets/done/files/README.md"
        found = await asyncio.gather(*(gateway.call("GET", path, "erika") for _ in range(12)))
        codes = [one.status for one in found]
        lines = [line["outcome"] for line in gateway.audit() if line["action"] == "download"]
        assert 429 in codes
        assert lines.count("200") == codes.count(200)
