"""Where an attempt continues: behind the chains that earlier attempts have left."""

from collections.abc import Sequence

from shardline_common.dataset.chain import ChainRecord
from shardline_common.job.state import JobState, PartitionState
from shardline_producer.sources.documents import DeadLetterReason


def continue_chains(state: JobState, heads: Sequence[ChainRecord | None]) -> None:
    """Continue each partition where its chain ends, and the source at the lowest of these positions.

    Args:
        state: the state of the job or slice, changed in place.
        heads: the last chain record of each of its partitions.
    """
    state.partitions = [
        PartitionState(
            sequence=head.next,
            hash_sum=head.upto.hash_sum,
            bytes=head.upto.scanned_bytes,
            dead=sum(head.upto.dead.values()),
            resume_after=head.position,
        )
        if head
        else PartitionState()
        for head in heads
    ]
    # A partition without a chain starts at the beginning of the source.
    positions = [head.position for head in heads if head is not None]
    state.cursor = min(positions) if len(positions) == len(heads) else None
    state.source_count = state.cursor[-1] if state.cursor else 0
    vanished = DeadLetterReason.VANISHED.value
    state.vanished = sum(head.upto.dead.get(vanished, 0) for head in heads if head)
