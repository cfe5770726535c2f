"""How many documents of a source may be unusable: as a number, as a share, and never all."""

from collections.abc import Iterable, Sequence

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.spec import FilesSource, JobSpec
from shardline_common.job.state import JobState
from shardline_producer.sources.documents import DeadLetterReason, without_values
from shardline_producer.sources.field_proposals import advice, describe, fields_of
from shardline_producer.sources.source import Document, InvalidDocument

EARLY = 10_000
"""When the first so many documents are all dead letters, the job fails before the end of its source."""
_COUNTS_ABOVE = 10
_FIX = "fix the source or the job, and submit a new job; `shardline dead-letters list` shows them"

_WRONG_FIELDS = (
    DeadLetterReason.MISSING_ID,
    DeadLetterReason.BAD_ID,
    DeadLetterReason.NO_CONTENT,
    DeadLetterReason.CONTENT_NOT_TEXT,
    DeadLetterReason.MISSING_FIELD,
)


def check_sample(spec: JobSpec, leading: Sequence[InvalidDocument], *, usable: bool, complete: bool) -> None:
    """Check at planning that documents have the fields that the job names, before anything is written.

    Args:
        spec: the job.
        leading: the dead letters before the first usable document of the sample.
        usable: whether the sample has a usable document.
        complete: whether the sample is the whole source.

    Raises:
        JobFailed: all documents of the source, or the first `EARLY`, are dead letters, and most of them
            because the field of the id or of the text is missing or has another type (`all_dead`).
    """
    found = leading[:EARLY]
    early = len(found) == EARLY
    wrong = [one for one in found if one.fields is not None and one.dead_letter.reason in _WRONG_FIELDS]
    # When the sample ends at its bytes, documents behind it may be usable.
    share = 0.5 if early or complete else 1.0
    if not wrong or len(wrong) < share * len(found) or (usable and not early):
        return
    which = "all {:,} documents are" if complete and not early else "the first {:,} documents are all"
    first = without_values(wrong[0].dead_letter) if spec.redacts else wrong[0].dead_letter
    raise JobFailed(
        FailureCode.ALL_DEAD,
        f"{which.format(len(found))} dead letters; the first: {first.hint} ({first.reason}); "
        f"the fields that there are: {describe(fields_of(wrong))}",
        hint=mapping_advice(spec, wrong) or "name the fields of id and text in source.fields of the job",
    )


def mapping_advice(spec: JobSpec, contents: Iterable[Document | InvalidDocument]) -> str | None:
    """The mapping that would make documents of dead letters, as a hint; None when there is none."""
    fields = fields_of(contents)
    if not fields or not isinstance(spec.source, FilesSource):
        return None
    return advice(spec.source, fields, spec.quality.min_score)


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


def check_beginning(
    state: JobState, read_before: int, first_usable: int | None, mapping: str | None = None
) -> None:
    """Check the first `EARLY` documents, in the batch with the last of them.

    Args:
        state: the state behind the batch.
        read_before: the documents before the batch, of which all are dead letters.
        first_usable: the ordinal of the first document of the batch that is no dead letter; None for none.
        mapping: the `mapping_advice` for the first of them.

    Raises:
        JobFailed: they are all dead letters (`all_dead`).
    """
    if read_before < EARLY <= state.source_count and (first_usable is None or first_usable > EARLY):
        raise _all_dead(state, f"the first {EARLY:,} documents are all dead letters", mapping)


def check_end(state: JobState, mapping: str | None = None) -> None:
    """Check the shares at the end of the source, so that no timing decides.

    `mapping` as in `check_beginning`.

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
        raise _all_dead(state, f"all {count:,} documents are dead letters", mapping)
    # Those that vanished have a limit of their own.
    unusable = dead - vanished
    if unusable > _COUNTS_ABOVE and unusable > quality.max_dead_letter_ratio * count:
        raise JobFailed(
            FailureCode.TOO_MANY_DEAD_LETTERS,
            f"{unusable:,} of {count:,} documents are dead letters, the job allows a share of "
            f"{quality.max_dead_letter_ratio:g}{_example(state)}",
            hint=f"{_FIX}; or raise quality.max_dead_letter_ratio in it",
        )


def _all_dead(state: JobState, message: str, mapping: str | None) -> JobFailed:
    return JobFailed(FailureCode.ALL_DEAD, message + _example(state), hint=mapping or _FIX)


def _example(state: JobState) -> str:
    return f"; the first: {state.first_dead_letter}" if state.first_dead_letter else ""
