"""The conservation proof: everything that was produced is in the chain, and nothing else."""

from collections.abc import Sequence

from shardline_common.dataset.chain import ChainRecord, Totals
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.state import PartitionState


def prove_conservation(
    produced: Sequence[PartitionState], heads: Sequence[ChainRecord | None], source_count: int
) -> None:
    """Check the counts of a job whose documents are all produced and committed.

    For each partition, produced = rows + rejections + dead letters, and the hash sums of the document ids
    agree. The sum over all partitions equals the source's own count.

    Args:
        produced: the counts that the producer sent, by partition.
        heads: the last chain record of each partition; None for an empty chain.
        source_count: how many documents the source has by its own count.

    Raises:
        JobFailed: `conservation`, naming the first sum that disagrees.
    """
    for number, (sent, head) in enumerate(zip(produced, heads, strict=True)):
        committed = head.upto if head else Totals()
        problem = partition_problem(number, sent.sequence, f"{sent.hash_sum:016x}", committed)
        if problem is not None:
            raise _conservation_error(problem)
    counted = sum(part.sequence for part in produced)
    if counted != source_count:
        raise _conservation_error(f"the source counted {source_count} documents, {counted} were produced")


def partition_problem(number: int, messages: int, hash_sum: str, committed: Totals) -> str | None:
    """Why the totals of a chain are not those of the produced messages; None when they are.

    Args:
        number: the partition.
        messages: the number of messages that were produced.
        hash_sum: the sum of their document hashes mod 2^64, as 16 hexadecimal digits.
        committed: the totals of its chain.
    """
    if committed.records != messages:
        return f"partition {number}: {messages} messages were produced, {committed.records} are in the chain"
    if f"{committed.hash_sum:016x}" != hash_sum:
        return f"partition {number}: the hash sum of the document ids disagrees with the producer's"
    return None


def _conservation_error(message: str) -> JobFailed:
    return JobFailed(FailureCode.CONSERVATION, message, hint="retry the job; if it fails again, report it")
