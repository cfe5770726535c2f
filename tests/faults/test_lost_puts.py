"""A proxy before a real store acknowledges a put and does not apply it: the job puts it again, or says so."""

import secrets
from pathlib import Path

import pytest

from shardline.services.sample import write_sample
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import Layout
from shardline_common.storage.s3 import S3Store
from tests.faults.proxies import Fault, S3Proxy
from tests.faults.test_short_answers import client_of
from tests.services import S3
from tests.support.embedded import run_embedded, small_job

SPEC = small_job(partitions=1)


@pytest.mark.parametrize(
    ("part", "ends"),
    [
        ("/data/", "object_lost"),
        ("_state/chain/00000/000000000000", "conservation"),
        ("_state/outcome", "completed"),
        ("_SUCCESS", "completed"),
    ],
)
async def test_a_put_that_is_acknowledged_and_lost(tmp_path: Path, seaweed: S3, part: str, ends: str) -> None:
    write_sample(tmp_path / "sample.jsonl", 150)
    proxy = S3Proxy(seaweed.endpoint)
    proxy.faults = [Fault("PUT", part, "swallowed", 1)]
    with proxy.running() as endpoint:
        async with client_of(seaweed, endpoint) as client:
            store = S3Store(client, seaweed.bucket, secrets.token_hex(4))
            state = (await run_embedded(SPEC, store, tmp_path)).state
            assert proxy.faults[0].times == 0
            assert ends in (state.state, state.code), state.message
            if ends == "completed":
                report = await Verifier(store, Layout.of(SPEC).root).run()
                assert report.ok, report.problems
            else:
                assert part.rpartition("/")[0] in (state.message or "")
