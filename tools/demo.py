"""`make demo`: turn a sample into a verified dataset, with the commands that a user types."""

import os
import subprocess
import sys
from pathlib import Path

import orjson

from shardline.cli.console import print_line, print_message
from shardline.services.units import format_counts

DOCUMENTS = 20_000
JOB = {
    "job_id": "demo",
    "name": "demo",
    "source": {"type": "files", "paths": ["documents.jsonl.zst"]},
    "output": {"shard_bytes": 1_048_576, "validation_fraction": 0.05},
}


def shardline(folder: Path, *arguments: str) -> bytes:
    """Run a command in the demo's folder and return its stdout; its messages go to the terminal.

    Ends the demo with the command's exit code when the command fails.
    """
    print_message(f"$ shardline {' '.join(arguments)}")
    command = [sys.executable, "-m", "shardline", *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=False)  # noqa: S603 - Shardline itself
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def main() -> None:
    """Run the demo in the folder that the first argument names."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".run/demo")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_bytes(orjson.dumps(JOB, option=orjson.OPT_INDENT_2))
    shardline(folder, "sample", "documents.jsonl.zst", "--documents", str(DOCUMENTS))
    ran = orjson.loads(shardline(folder, "run", "job.json", "--output", "datasets", "--json"))
    report = orjson.loads(
        shardline(folder, "verify", os.path.relpath(ran["dataset"], folder.resolve()), "--json")
    )
    dataset = os.path.relpath(ran["dataset"])
    print_line("")
    print_line(f"dataset   {dataset}")
    print_line(
        f"kept      {report['rows']:,} of {ran['source_documents']:,} documents, in {report['shards']} shards"
    )
    print_line(f"rejected  {format_counts(report['rejected'])}")
    print_line(f"proven    digest {report['digest']}")
    print_line("")
    print_line("Load it with Hugging Face datasets:")
    print_line(f"  load_dataset('json', data_files='{dataset}/data/train/*.jsonl', split='train')")


if __name__ == "__main__":
    main()
