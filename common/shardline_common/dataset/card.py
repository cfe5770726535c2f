"""The Hugging Face dataset card: README.md with `configs` and `dataset_info.features`."""

from collections.abc import Mapping
from typing import Any

import orjson

from shardline_common.dataset.card_assembly import assembly_section
from shardline_common.job.findings import remarks

_INDENT = "  "


def dataset_card(manifest: Mapping[str, Any]) -> str:
    """The card of a manifest. It lists only splits that have rows, because readers fail on empty ones."""
    job = manifest["job"]
    splits = {name: sums for name, sums in manifest["splits"].items() if sums["rows"]}
    suffix = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}[job["output"]["compression"]]
    parts = ["---", *_front_matter(job["name"], splits, manifest["schema"]["features"], suffix), "---", ""]
    return "\n".join([*parts, *_body(manifest, splits, suffix), ""])


def is_card_of(body: bytes, digest: str) -> bool:
    """Whether the bytes are a card of the dataset, also one that another version has written."""
    return _digest_line(digest).encode() in body


def _digest_line(digest: str) -> str:
    return f"Digest `{digest}`; `shardline verify` proves it."


def _front_matter(name: str, splits: Mapping[str, Any], features: list[list[str]], suffix: str) -> list[str]:
    lines = [f"pretty_name: {_quoted(name)}"]
    if splits:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split in splits:
            lines += [f"  - split: {split}", f"    path: data/{split}/*{suffix}"]
    lines += ["dataset_info:", "  features:", *_features(features)]
    if splits:
        lines.append("  splits:")
        for split, sums in splits.items():
            lines += [
                f"  - name: {split}",
                f"    num_bytes: {sums['bytes']}",
                f"    num_examples: {sums['rows']}",
            ]
    return lines


def _features(features: list[list[str]]) -> list[str]:
    lines: list[str] = []
    inside = False
    for path, dtype in features:
        group, _, leaf = path.partition(".") if path.startswith("metadata.") else ("", "", path)
        if group and not inside:
            lines += ["  - name: metadata", "    struct:"]
        inside = bool(group)
        indent = _INDENT * 2 if group else _INDENT
        lines += [f"{indent}- name: {_quoted(leaf)}", f"{indent}  dtype: {dtype}"]
    return lines


def _quoted(text: str) -> str:
    # A JSON string is a valid YAML double-quoted scalar.
    return orjson.dumps(text).decode()


def _body(manifest: Mapping[str, Any], splits: Mapping[str, Any], suffix: str) -> list[str]:
    job, totals = manifest["job"], manifest["totals"]
    lines = [f"# {_one_line(job['name'])}", ""]
    lines += [f"{label}: {_one_line(job[key])}  " for key, label in _ABOUT.items() if job[key]]
    lines += [f"{_one_line(key)}: {_one_line(value)}  " for key, value in sorted(job["labels"].items())]
    lines += [
        f"Job `{job['job_id']}`, Shardline {manifest['software']}, completed {manifest['completed_at']}.",
        "",
        "| | documents |",
        "|---|---:|",
        f"| read from the source | {totals['documents']:,} |",
        f"| kept as rows | {totals['rows']:,} |",
        *(f"| rejected: {reason} | {count:,} |" for reason, count in manifest["rejected"].items()),
        *(f"| dead letter: {reason} | {count:,} |" for reason, count in manifest["dead_letters"].items()),
        *(
            f"| personal data {_PII[job['pii']['action']]}: {kind} | {count:,} |"
            for kind, count in manifest.get("pii", {}).items()
        ),
        "",
        f"{totals['words']:,} words, {totals['bytes']:,} bytes, mean quality {totals['mean_quality']}.  ",
        _digest_line(manifest["digest"]),
        *_missing_searches(manifest["source"]),
        *(f"{_one_line(one)}.  " for one in remarks(manifest["source"])),
        "",
    ]
    if section := assembly_section(manifest):
        lines += [*section, "## Reading it", ""]
    if splits:
        lines += loading_snippet(next(iter(splits)), suffix)
    else:
        why = why_empty(totals["documents"], filtered=bool(job["query"]["filters"]))
        lines.append(f"The dataset is empty: {why}.")
    return lines


def why_empty(documents: int, *, filtered: bool) -> str:
    """Why a dataset has no rows: `documents` passed the query, which is `filtered` or not."""
    if documents:
        return "no document passed the filters"
    return "no document of the source passed query.filters" if filtered else "the source has no document"


def loading_snippet(split: str, suffix: str) -> list[str]:
    """The lines that read a split from the dataset's folder with Hugging Face datasets.

    Its reader of JSON would guess the types from the first 10 MB, and turn texts that look like times into
    times, also where features are given.
    """
    packed = "" if suffix == ".jsonl" else ', compression="infer"'
    return [
        "```python",
        "import json",
        "",
        "import fsspec",
        "from datasets import IterableDataset",
        "from shardline import sync",
        "",
        "",
        "def read(shards):",
        "    for shard in shards:",
        "        with shard as lines:",
        "            yield from map(json.loads, lines)",
        "",
        "",
        'folder = "."',
        (
            f'shards = list(fsspec.open_files(f"{{folder}}/data/{split}/*{suffix}", "rt", encoding="utf-8"'
            f"{packed}))"
        ),
        "features = sync.features(folder)",
        'rows = IterableDataset.from_generator(read, features, gen_kwargs={"shards": shards})',
        "```",
    ]


def _missing_searches(source: Mapping[str, Any]) -> list[str]:
    # A search over fewer stores than the job asks for gives another dataset; its users must know.
    return [
        f"{sentence}: {', '.join(source[key])}.  "
        for key, sentence in (
            ("left_out", "Searches left out, which no store or table here can do"),
            ("degraded", "Down, neither searched nor asked what is deleted"),
        )
        if source.get(key)
    ]


_PII = {"redact": "replaced", "count": "in the rows", "reject": "in the rows"}
_ABOUT = {"purpose": "Purpose", "submitted_by": "Submitted by"}


def _one_line(text: str) -> str:
    return " ".join(text.split())
