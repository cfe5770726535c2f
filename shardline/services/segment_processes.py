"""Checks of segments in worker processes: `verify` on all cores."""

import logging
from collections.abc import AsyncIterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from dataclasses import replace

from shardline.services import segment_worker
from shardline_common.assembly.extra import missing_packages
from shardline_common.assembly.stored_sidecars import sidecar_facts
from shardline_common.dataset.chain import ChainRecord
from shardline_common.dataset.segment_check import CheckedSegment, SegmentChecker, SegmentRules
from shardline_common.dataset.segment_checks import SegmentChecks
from shardline_common.dataset.shard_record import ShardRecord
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.processes import can_start_processes, open_processes, result_of
from shardline_common.settings.load import Settings

_log = logging.getLogger(__name__)
# Starting a process takes about the CPU time of checking a quarter of these bytes.
_BYTES_OF_PROCESS = 256 << 20
# While a process waits for its next segment, it does nothing: one more is in the queue for each of them.
_SEGMENTS_OF_PROCESS = 2
_FEWEST = 2


@asynccontextmanager
async def open_checks(
    store: ObjectStore, uri: str, settings: Settings, processes: int, rules: SegmentRules, row_bytes: int
) -> AsyncIterator[SegmentChecks]:
    """Open what checks the segments of a dataset: processes when it is large enough for two, else this one.

    Args:
        store: the store of the dataset.
        uri: the address of the same store, which each process opens.
        settings: its settings.
        processes: the largest number of processes.
        rules: what the segments are checked against.
        row_bytes: the bytes of all rows; a wrong number only makes it slower.
    """
    # Without the extra, only the stored bytes of sidecars are checked.
    rules = replace(rules, read_sidecar=None if missing_packages() else sidecar_facts)
    here = SegmentChecker(store, rules)
    count = min(processes, row_bytes // _BYTES_OF_PROCESS)
    if count < _FEWEST or not can_start_processes():
        yield SegmentChecks(here.check)
        return
    async with open_processes(count, segment_worker.start, uri, settings, rules) as executor:
        broken = False

        async def check(record: ChainRecord | ShardRecord) -> CheckedSegment:
            nonlocal broken
            try:
                return await result_of(executor, executor.submit(segment_worker.check, record))
            except BrokenProcessPool:
                if not broken:
                    _log.warning("a process of `verify` was killed; the rest is checked by one process")
                    broken = True
            return await here.check(record)

        yield SegmentChecks(check, count * _SEGMENTS_OF_PROCESS)
