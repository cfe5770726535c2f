"""Planted bugs of the slices of a job. They are caught in schedules with slices."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from unittest.mock import patch

from shardline_common.job.names import CHECKPOINTS
from shardline_common.job.state import JobState, State, checkpoint
from shardline_producer import slice_follower, slice_states
from shardline_producer.slice_follower import SliceFollower
from shardline_producer.slice_states import SliceStates


async def _open_always(slices: SliceStates, state: JobState, ranges: int, at: str) -> None:
    for number in range(ranges):
        async with slices.fence_and_load(number) as (writer, _), writer.transaction() as transaction:
            first = JobState(
                state.spec,
                attempt=state.attempt,
                accepted_at=state.accepted_at,
                updated_at=at,
                slice=number,
                home=slices.home_of(number),
            )
            await transaction.send(CHECKPOINTS, [checkpoint(first)])


def _opened_twice(stack: ExitStack) -> None:
    """An owner that takes over a job opens its slices again."""
    stack.enter_context(patch.object(slice_follower, "open_slices", _open_always))


def _of_any_attempt(stack: ExitStack) -> None:
    """Slices of an ended attempt stay, and are taken for those of the next one."""
    real = slice_states.open_slices

    async def open_missing(slices: SliceStates, state: JobState, ranges: int, at: str) -> None:
        if len(await slices.load(range(ranges))) < ranges:
            await real(slices, state, ranges, at)

    async def remove(*_: object) -> None:
        """Remove nothing."""

    stack.enter_context(patch.object(slice_follower, "open_slices", open_missing))
    stack.enter_context(patch("shardline_producer.remains.remove_slices", remove))


def _end_counted_twice(stack: ExitStack) -> None:
    """The documents of a slice that has ended are counted a second time."""
    real = slice_follower.merge

    def merge(state: JobState, slices: Mapping[int, JobState], ranges: int) -> None:
        real(state, slices, ranges)
        ended = [one.source_count for one in slices.values() if one.state is State.COMPLETING]
        state.source_count += ended[0] if ended else 0

    stack.enter_context(patch.object(slice_follower, "merge", merge))


def _first_end_ends_all(stack: ExitStack) -> None:
    """The job ends when its first slice has ended."""

    def ended(self: SliceFollower) -> bool:
        return any(state.state is State.COMPLETING for state in self._known.values())

    stack.enter_context(patch.object(SliceFollower, "_ended", ended))


SLICED: dict[str, Callable[[ExitStack], None]] = {
    "a slice is opened twice": _opened_twice,
    "a slice of an ended attempt is taken for one of the next": _of_any_attempt,
    "the end of a slice is counted twice": _end_counted_twice,
    "the job ends with its first slice": _first_end_ends_all,
}
"""Each of these breaks a guarantee in some schedules with slices."""
