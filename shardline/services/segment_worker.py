"""What a process of `verify` runs. It imports little, because each process imports it."""

import asyncio
from contextlib import AsyncExitStack

from shardline.services.wiring.stores import open_store_at
from shardline_common.dataset.chain import ChainRecord
from shardline_common.dataset.segment_check import CheckedSegment, SegmentChecker, SegmentRules
from shardline_common.dataset.shard_record import ShardRecord
from shardline_common.settings.load import Settings

# The one runner of this process, and the checker whose store is open in it until the process ends.
_opened: list[tuple[asyncio.Runner, SegmentChecker]] = []


def start(uri: str, settings: Settings, rules: SegmentRules) -> None:
    """Open the store of a dataset. Raises as `open_store_at`."""
    runner = asyncio.Runner()
    store = runner.run(AsyncExitStack().enter_async_context(open_store_at(uri, settings)))
    _opened.append((runner, SegmentChecker(store, rules)))


def check(record: ChainRecord | ShardRecord) -> CheckedSegment:
    """Check a segment. Raises as `SegmentChecker.check`."""
    runner, checker = _opened[0]
    return runner.run(checker.check(record))
