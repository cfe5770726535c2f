"""Hugging Face datasets: `hf.py INPUT OUTPUT`. Batched, as its documentation recommends."""

import sys
from typing import Any

from datasets import load_dataset
from task import MIN_SCORE, row, score

Batch = dict[str, list[Any]]


def _documents(batch: Batch) -> list[dict[str, Any]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def passes(batch: Batch) -> list[bool]:
    """Which documents of a batch become rows."""
    return [score(one) >= MIN_SCORE and bool(one["content"].strip()) for one in _documents(batch)]


def rows(batch: Batch) -> Batch:
    """The rows of a batch whose documents all pass."""
    found = [row(one) for one in _documents(batch)]
    return {name: [one[name] for one in found] for name in found[0]}


def main() -> None:
    """Turn the documents of a JSONL file into rows."""
    documents = load_dataset("json", data_files=sys.argv[1], split="train")
    passed = documents.filter(passes, batched=True)
    made = passed.map(rows, batched=True, remove_columns=documents.column_names)
    made.to_json(sys.argv[2], force_ascii=False)


if __name__ == "__main__":
    main()
