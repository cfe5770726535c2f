"""Batch against stream, 10,000 documents of 2 KB: `python -m tests.benchmarks.claim`."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.common import usage, write_corpus

DOCUMENTS = 10_000
BATCH = """
import json, sys, time
documents = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
rows = [json.dumps({"text": d["content"], "metadata": {"title": d["title"]}}) for d in documents]
open(sys.argv[2] + "/rows.jsonl", "w", encoding="utf-8").write("\\n".join(rows))
time.sleep(0.3)  # so that its peak can be read from outside
"""


def measured(command: list[str], found: Path, pattern: str) -> tuple[float, float]:
    """Seconds to the first row, and peak MiB of the process."""
    started, first, peak = time.perf_counter(), 0.0, 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if not first and any(found.glob(pattern)):
                first = time.perf_counter() - started
            try:
                peak = max(peak, usage(process.pid)[1])
            except (OSError, StopIteration):
                break
            time.sleep(0.005)
    assert process.wait() == 0
    return first, peak


def main() -> None:
    """Print the table."""
    table = Table(title=f"{DOCUMENTS:,} documents of 2 KB")
    for column in ("", "first row after", "peak RSS"):
        table.add_column(column)
    with tempfile.TemporaryDirectory(prefix="shardline-claim-") as name:
        folder = Path(name)
        corpus, job = folder / "corpus.jsonl", folder / "job.json"
        write_corpus(corpus, DOCUMENTS)
        (folder / "batch").mkdir()
        batch = [sys.executable, "-c", BATCH, str(corpus), str(folder / "batch")]
        source = {"type": "files", "paths": [str(corpus)]}
        job.write_text(json.dumps({"name": "claim", "source": source, "output": {"shard_bytes": 1 << 20}}))
        run = [sys.executable, "-m", "shardline", "run", str(job), "--output", str(folder / "stream")]
        for label, command, pattern in (
            ("collected first", batch, "batch/rows.jsonl"),
            ("shardline run (start-up included)", run, "stream/claim/*/data/train/*"),
        ):
            first, peak = measured(command, folder, pattern)
            table.add_row(label, f"{first:.2f} s", f"{peak:.0f} MiB")
    Console(width=90).print(table)


if __name__ == "__main__":
    main()
