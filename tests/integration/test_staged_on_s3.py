"""Staged segments on an S3 store: two workers at once, another try, and the check of what is stored."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shardline.services.wiring.stores import s3_options
from shardline_common.assembly.stored_sidecars import sidecar_facts
from shardline_common.dataset.contents import check_sizes, list_sizes, read_segments
from shardline_common.dataset.segment_check import SegmentChecker
from shardline_common.dataset.staged import prove_staged
from shardline_common.job.names import Layout
from shardline_common.job.plan import Plan
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import ObjectStore
from shardline_common.settings.load import Settings
from shardline_common.storage.s3 import S3Store, open_s3
from tests.services import S3
from tests.staged import EVERYTHING, Item, assembled_job, chain, land, messages, rules_of, sink_of

SPEC = assembled_job(**EVERYTHING)
LAYOUT = Layout.of(SPEC)
KINDS = ("row", "row", "rejected", "dead", "row", "empty", "row")
ITEMS = [Item(KINDS[n % 7], f"d{n % 11}", f"dies ist der Text Nummer {n} von vielen") for n in range(30)]


@pytest.fixture
async def store(tmp_path: Path, seaweed: S3) -> AsyncIterator[S3Store]:
    settings = Settings(
        s3_bucket=seaweed.bucket,
        aws_endpoint_url_s3=seaweed.endpoint,
        aws_access_key_id=seaweed.access_key,
        aws_secret_access_key=seaweed.secret_key,
    )
    async with open_s3(s3_options(settings)) as client:
        yield S3Store(client, seaweed.bucket, tmp_path.name)


async def bodies(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: await store.get(info.key) async for info in store.list("")}


async def test_two_workers_at_once_store_what_one_stores(tmp_path: Path, store: S3Store) -> None:
    alone = MemoryStore()
    await land(sink_of(alone, tmp_path, SPEC), messages(ITEMS), iter(()))
    # Both open the first segment; whoever is behind goes on at the end of the chain in its next segment.
    async with asyncio.TaskGroup() as tasks:
        for size in (2, 7):
            tasks.create_task(land(sink_of(store, tmp_path, SPEC), messages(ITEMS), iter([size] * 20)))
    assert await bodies(store) == await bodies(alone)
    assert list(tmp_path.iterdir()) == []


async def test_a_dataset_without_its_last_records_is_landed_again(tmp_path: Path, store: S3Store) -> None:
    await land(sink_of(store, tmp_path, SPEC), messages(ITEMS), iter(()))
    before, records = await bodies(store), await chain(store, SPEC)
    await store.delete([LAYOUT.chain_record(0, record.first) for record in records[1:]])
    await land(sink_of(store, tmp_path, SPEC), messages(ITEMS), iter((4, 1)))
    assert await bodies(store) == before


async def test_what_is_stored_is_proven_and_checked(tmp_path: Path, store: S3Store) -> None:
    await land(sink_of(store, tmp_path, SPEC), messages(ITEMS), iter(()))
    await store.create(LAYOUT.plan, Plan([], {}).encode())
    records = await chain(store, SPEC)
    upto = records[-1].upto
    sizes = await list_sizes(store, LAYOUT)
    contents = await read_segments(store, SPEC, LAYOUT, [(upto.records, upto.hash_sum)], sizes)
    check_sizes(contents, sizes, LAYOUT)
    assert len(await prove_staged(store, LAYOUT, contents.records)) == sum(
        one.segment.rows > 0 for one in records
    )
    checker = SegmentChecker(store, rules_of(SPEC, read_sidecar=sidecar_facts))
    for record in records:
        assert (await checker.check(record)).problems == []
