"""The MinHash pipeline of datatrove: `trove_minhash.py INPUT FOLDER`. Prints CPU-seconds by stage."""

import json
import resource
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.word_tokenizers import WordTokenizer

BANDS, ROWS = 14, 8


class Split(WordTokenizer):  # type: ignore[misc]  # datatrove is in an environment of its own
    """Words by white space: its tokenizers of languages take seven times as long."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """Is not called."""
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Is not called."""
        return [(0, len(text))]


def main() -> None:
    """Sign, find pairs, cluster, filter: one task after the other in this process."""
    path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    config = MinhashConfig(n_grams=5, num_buckets=BANDS, hashes_per_bucket=ROWS)
    signatures, buckets, removed = (str(folder / name) for name in ("signatures", "buckets", "removed"))

    def reader() -> JsonlReader:
        return JsonlReader(
            str(path.parent), glob_pattern=path.name, text_key="text", id_key="id", add_file_path=False
        )

    stages = {
        "sign": ([reader(), MinhashDedupSignature(signatures, config, language=Split("en"))], 1),
        "pairs": ([MinhashDedupBuckets(signatures, buckets, config=config)], BANDS),
        "cluster": ([MinhashDedupCluster(buckets, removed, config=config)], 1),
        "filter": (
            [reader(), MinhashDedupFilter(removed), JsonlWriter(str(folder / "rows"), compression=None)],
            1,
        ),
    }
    found: dict[str, float] = {}
    for name, (pipeline, tasks) in stages.items():
        started = time.process_time()
        logs = str(folder / f"{name}-logs")
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=1, logging_dir=logs).run()
        found[name] = time.process_time() - started
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
