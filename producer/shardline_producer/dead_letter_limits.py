"""How many documents of a source may be unusable: as a number, as a share, and never all."""

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.state import JobState

EARLY = 10_000
"""When the first so many documents are all dead letters, the job fails before the end of its source."""
_COUNTS_ABOVE = 10
_FIX = "fix the source or the job, and submit a new job; `shardline dead-letters list` shows them"


def check_number(state: JobState, last: str) -> None:
    """Check `quality.max_dead_letters`. `last` is the last dead letter, or "".

    Raises:
        JobFailed: there are more (`too_many_dead_letters`).
    """
    dead, allowed = state.dead, state.spec.quality.max_dead_letters
    if allowed is not None and dead > allowed:
        raise JobFailed(
            FailureCode.TOO_MANY_DEAD_LETTERS,
            f"{dead} dead letters, the job allows {allowed}" + (f"; the last: {last}" if last else ""),
            hint="see `shardline dead-letters list`; fix the source or raise quality.max_dead_letters",
        )


def check_beginning(state: JobState, read_before: int, first_usable: int | None) -> None:
    """Check the first `EARLY` documents, in the batch with the last of them.

    Args:
        state: the state behind the batch.
        read_before: the documents before the batch, of which all are dead letters.
        first_usable: the ordinal of the first document of the batch that is no dead letter; None for none.

    Raises:
        JobFailed: they are all dead letters (`all_dead`).
    """
    if read_before < EARLY <= state.source_count and (first_usable is None or first_usable > EARLY):
        raise _all_dead(state, f"the first {EARLY:,} documents are all dead letters")


def check_end(state: JobState) -> None:
    """Check the shares at the end of the source, so that no timing decides.

    Raises:
        JobFailed: too many planned documents vanished (`source_changed`), all documents are dead letters
            (`all_dead`), or too large a share of them is (`too_many_dead_letters`).
    """
    quality, count = state.spec.quality, state.source_count
    vanished, dead = state.vanished, state.dead
    if vanished > quality.max_vanished and vanished > quality.max_vanished_ratio * count:
        raise JobFailed(
            FailureCode.SOURCE_CHANGED,
            f"{vanished:,} of {count:,} planned documents were removed or marked deleted before they were "
            f"read; the job allows {quality.max_vanished:,}, or a share of {quality.max_vanished_ratio:g}",
            hint="submit a new job, or raise quality.max_vanished or quality.max_vanished_ratio in it",
        )
    if dead and dead == count:
        raise _all_dead(state, f"all {count:,} documents are dead letters")
    # Those that vanished have a limit of their own.
    unusable = dead - vanished
    if unusable > _COUNTS_ABOVE and unusable > quality.max_dead_letter_ratio * count:
        raise JobFailed(
            FailureCode.TOO_MANY_DEAD_LETTERS,
            f"{unusable:,} of {count:,} documents are dead letters, the job allows a share of "
            f"{quality.max_dead_letter_ratio:g}{_example(state)}",
            hint=f"{_FIX}; or raise quality.max_dead_letter_ratio in it",
        )


def _all_dead(state: JobState, message: str) -> JobFailed:
    return JobFailed(FailureCode.ALL_DEAD, message + _example(state), hint=_FIX)


def _example(state: JobState) -> str:
    return f"; the first: {state.first_dead_letter}" if state.first_dead_letter else ""
