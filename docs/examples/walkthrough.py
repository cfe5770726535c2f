"""A walk through Shardline's Python API, in cells (# %%): make, check and read a dataset.

Run it with `python walkthrough.py` in an empty folder. In a notebook, where an event loop runs already,
write `await shardline.run(…)` in place of `sync.run(…)`, and likewise for the other functions.
"""

# %% The imports
import json
import sys
from collections import Counter
from pathlib import Path

import shardline
from shardline import sync
from shardline.errors import JobFailed, JobInvalid

# %% Some documents: one JSON object a line, with an id, a text, and metadata of any kind
SUBJECTS = ["Die Baugenehmigung", "Der Bebauungsplan", "Die Satzung", "Das Gutachten"]
with Path("laws.jsonl").open("w", encoding="utf-8") as file:
    for number in range(400):
        text = f"{SUBJECTS[number % 4]} Nr. {number} gilt ab sofort. " * (number % 40)
        document = {
            "document_id": f"law-{number:04d}",
            "content": text,
            "title": f"{SUBJECTS[number % 4]} Nr. {number}",
            "domain": "baurecht" if number % 3 else "umweltrecht",
            "year": 2000 + number % 25,
        }
        file.write(json.dumps(document, ensure_ascii=False) + "\n")
    file.write('{"document_id": "law-0400", "content": \n')

# %% A job: what to read, what to keep, how to store it. A dict with the same fields works as well
job = shardline.Job(
    name="laws",
    source=shardline.FilesSource(type="files", paths=["laws.jsonl"]),
    quality=shardline.Quality(min_score=0.5),
    output=shardline.Output(shard_bytes=65_536, validation_fraction=0.1),
)
print(f"job {job.job_id}")

# %% What would it do? Nothing is written
preview = sync.preview(job)
print(f"of {preview.documents} documents {preview.rows} would be rows, {preview.bytes} bytes")
print(f"rejected {dict(preview.rejected)}, dead letters {dict(preview.dead_letters)}")
for one in preview.sample[:3]:
    print(f"  {one.document_id}: score {one.quality_score}, {one.reason or 'kept'}")


# %% Do it. The same call continues a run that was stopped or killed
def show(progress: shardline.Progress) -> None:
    """Print the progress on stderr."""
    rate = progress.documents_per_second or 0.0
    print(f"{progress.state}: {progress.ratio:.0%}, {rate:.0f} documents/s", file=sys.stderr)


result = sync.run(job, output="datasets", on_progress=show)
print(f"{result.rows} rows in {result.shards} shards, digest {result.digest}")
assert result.rows == preview.rows

# %% Check it: every byte is read again
report = sync.verify(result.dataset)
assert report.ok, report.problems
assert report.digest == result.digest

# %% Read it: plain JSONL files, one row a line
rows = [
    json.loads(line)
    for path in sorted(Path(result.dataset).glob("data/*/*.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
]
assert len(rows) == result.rows
print(Counter(row["metadata"]["domain"] for row in rows))

# %% Rows without a dataset: for a look, or for a program that takes them one by one
stream = sync.stream(job)
longest = max(stream, key=lambda row: len(row.text))
print(f"{longest.document_id} is the longest of {stream.counts.rows} rows")

# %% What goes wrong is an error with a sentence, and often a hint
try:
    sync.run({"name": "laws", "source": {"type": "files", "paths": ["none.jsonl"]}})
except JobFailed as error:
    print(f"{error.code}: {error}")
try:
    sync.run({"name": "laws", "sauce": {"type": "files", "paths": ["laws.jsonl"]}})
except JobInvalid as error:
    print(f"{error}; try: {error.hint}")
