"""Whether lines of files are read by other processes, and by how many."""

from contextlib import AbstractAsyncContextManager, nullcontext

from shardline_producer.sources.files.file_format import format_of
from shardline_producer.sources.files.file_reader import Reading, ReadPieces
from shardline_producer.sources.source import Frozen

# A process costs 0.3 CPU-seconds to start. It reads as many bytes in about a second.
_BYTES_OF_PROCESS = 64 << 20
_DOCUMENTS_OF_PROCESSES = 50_000


def open_reading(
    files: Frozen, reading: Reading, top_k: int | None, at_most: int
) -> AbstractAsyncContextManager[ReadPieces | None]:
    """Start processes that read the lines of these files, where that pays; None: this process reads them.

    Args:
        files: what is read.
        reading: how.
        top_k: the most documents that are read.
        at_most: the largest number of processes; 1 starts none.
    """
    count = 0
    # Where nothing is rendered, columns are sampled or rows shown, and the caller stops early.
    if at_most > 1 and reading.render is not None and (top_k is None or top_k >= _DOCUMENTS_OF_PROCESSES):
        lines: int = sum(file["size"] for file in files if format_of(file).records == "jsonl")
        count = min(at_most, lines // _BYTES_OF_PROCESS)
    if not count:
        return nullcontext()
    # It imports multiprocessing, which a small job does not need.
    from shardline_producer.sources.files.line_workers import open_line_workers  # noqa: PLC0415

    return open_line_workers(count, reading)
