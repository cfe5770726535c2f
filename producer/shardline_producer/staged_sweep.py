"""The sweep of staged rows: those of jobs that need them no more.

Staged rows are removed when their job is completed or deleted. A worker that was paused or disconnected may
store some after that, under keys that nothing else looks at.
"""

import logging
from collections.abc import Callable
from functools import partial

from shardline_common.dataset.staged import needs_staged
from shardline_common.job.names import STAGED, Layout, job_of_staged
from shardline_common.job.state import JobState
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.unexpected import UnexpectedErrors
from shardline_producer.sweep import repeat_sweep

_log = logging.getLogger(__name__)


async def sweep_staged(
    store: ObjectStore,
    clock: Clock,
    seconds: float,
    state_of: Callable[[str], JobState | None],
    errors: UnexpectedErrors,
) -> None:
    """Delete staged rows that no job needs every `seconds`, until cancelled.

    Args:
        store: the store of the datasets.
        clock: sleeps between sweeps.
        seconds: the interval.
        state_of: returns the state of a job that this producer owns, else None. Rows of other jobs are kept.
            With an old state rows may be kept, but none in use is deleted: a completed job stays completed.
        errors: logs what nobody has foreseen; the next sweep follows.
    """
    await repeat_sweep(partial(remove_unneeded, store, state_of), "staged rows", clock, seconds, errors)


async def remove_unneeded(store: ObjectStore, state_of: Callable[[str], JobState | None]) -> None:
    """Delete the staged rows of the jobs that need them no more.

    Raises:
        StoreUnavailable: call again.
    """
    unneeded: dict[str, JobState] = {}
    async for info in store.list(STAGED):
        state = state_of(job_of_staged(info.key) or "")
        if state is None or needs_staged(state.spec, state.state):
            continue
        # The name in the key is that of the job, or somebody else has put the object.
        if info.key.startswith(prefix := Layout.of(state.spec).staged_root):
            unneeded[prefix] = state
    for prefix, state in unneeded.items():
        await store.purge(prefix)
        _log.warning("the staged rows below %s of a job that is %s were deleted", prefix, state.state)
