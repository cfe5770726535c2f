"""A store that refuses or stays silent: one line of the log for each cause in 30 seconds, and not fewer."""

import asyncio
import logging
import random
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from botocore.hooks import HierarchicalEmitter

from shardline.services.local_run import run_job
from shardline_common.runtime.retry import retry_forever
from shardline_common.storage.s3 import S3Client, S3Options
from shardline_common.storage.s3_credentials import AccessKeys, StoreCredentials
from tests.make import job
from tests.simulation.loop import SimClock, simulate
from tests.support.small_s3 import small_s3
from tests.unit.test_waits import at_most_one_in_thirty_seconds, timed

CLOCK = SimClock()


class SilentStore:
    """A client of S3 whose requests have no answer within their time-out."""

    meta = SimpleNamespace(endpoint_url="http://store", events=HierarchicalEmitter())

    def __init__(self) -> None:
        self.requests = 0

    async def get_object(self, **_: Any) -> Any:
        """Wait for a minute in vain."""
        self.requests += 1
        await asyncio.sleep(60)
        raise ReadTimeoutError(endpoint_url="http://store")


def test_a_store_that_stays_silent_is_named_every_thirty_seconds(caplog: pytest.LogCaptureFixture) -> None:
    async def chain() -> None:
        raise AssertionError("there are keys")

    store = SilentStore()

    async def main(_: random.Random) -> None:
        credentials = StoreCredentials(AccessKeys("key", "secret"), None, chain)
        options = S3Options("b", endpoint_url="http://store")
        client: Any = store
        s3 = S3Client(client, options, credentials)
        calls = [
            asyncio.create_task(retry_forever(partial(s3.get, "b", f"k{number}"), CLOCK, f"read {number}"))
            for number in range(10)
        ]
        await CLOCK.sleep(600)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    with timed(caplog) as times:
        simulate(1, main)
    assert store.requests > 50
    at_most_one_in_thirty_seconds(times, 600)
    assert all("s3://b at http://store" in line for line in caplog.messages)


@pytest.mark.slow
async def test_a_run_over_a_store_that_refuses_logs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (f'{{"document_id": "{number}", "content": "{"x" * 300}"}}\n' for number in range(400))
    (tmp_path / "laws.jsonl").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    spec = job(
        job_id="refused",
        source={"type": "files", "paths": ["laws.jsonl"]},
        partitions=4,
        output={"shard_bytes": 65_536},
        quality={"min_score": 0.0},
    )
    refused, enough = 0, asyncio.Event()
    async with small_s3() as server:

        def count(name: str, key: str) -> None:
            nonlocal refused
            if "data/" in key:
                server.refused = dict.fromkeys(
                    ("PutObject", "GetObject", "ListObjectsV2"), (403, "AccessDenied")
                )
            refused += name in server.refused
            if refused >= 30:
                enough.set()

        server.on_request = count
        settings = server.settings()
        caplog.set_level(logging.WARNING)
        async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(run_job(spec, "s3://bucket/sets", settings, lambda _: None))
            await enough.wait()
            server.on_request = lambda _name, _key: None
            server.refused = {}
            result = await run
    assert result.view.state.state == "completed"
    told = [line for line in caplog.messages if "AccessDenied" in line]
    # A slow machine needs more than 30 seconds for the requests.
    assert 1 <= len(told) <= 2, told
    assert len(caplog.messages) == len(told), caplog.messages
