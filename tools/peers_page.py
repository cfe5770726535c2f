"""docs/peers.md, made from docs/peers.json, which `make bench-peers` measured."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_OURS = {
    "shardline": (
        "`shardline run`",
        "exactly once; the same bytes again; proven by `verify`",
    ),
    "shardline worker": ("`shardline worker`", "exactly once; the same bytes again; proven by `verify`"),
    "shardline producer": ("`shardline producer`, which fills the worker's topic", "exactly once"),
}


@dataclass(frozen=True)
class Cost:
    """The straight line through two sizes: CPU-seconds per million documents, and CPU-seconds at none."""

    per_million: Sequence[float]
    start: Sequence[float]
    peak_mib: float


def cost(one: Mapping[str, Any]) -> Cost | None:
    """The cost of one tool; None if it did not run."""
    if not one["cpu"]:
        return None
    (small, least), (large, most) = sorted((int(count), values) for count, values in one["cpu"].items())
    slopes = [(high - low) / (large - small) for low, high in zip(least, most, strict=True)]
    starts = [low - slope * small for low, slope in zip(least, slopes, strict=True)]
    peaks = [peak for values in one["peak_mib"].values() for peak in values]
    return Cost([slope * 1e6 for slope in slopes], starts, max(peaks))


def rows(result: Mapping[str, Any], table: str) -> list[list[str]]:
    """The rows of a table: tool, version, CPU per million, start, memory, guarantee. Cheapest first."""
    found: list[tuple[float, list[str]]] = []
    for name, one in result[table].items():
        title, version, guarantee = _about(result, table, name)
        if (measured := cost(one)) is None:
            reason = one["skipped"] or "not run"
            found.append((float("inf"), [title, version, f"skipped: {reason}", "", "", guarantee]))
            continue
        least = min(measured.per_million)
        figures = [
            _spread(measured.per_million),
            _spread(measured.start),
            f"{measured.peak_mib:,.0f} MiB",
        ]
        found.append((least, [title, version, *figures, guarantee]))
    return [row for _, row in sorted(found, key=lambda one: one[0])]


def _about(result: Mapping[str, Any], table: str, name: str) -> tuple[str, str, str]:
    if name in result["tools"]:
        tool = result["tools"][name]
        title = f"[{tool['title']}]({tool['docs']})" if "docs" in tool else tool["title"]
        return title, tool["version"], tool["guarantee"]
    key = "shardline worker" if (table, name) == ("topics", "shardline") else name
    title, guarantee = _OURS[key]
    return f"**{title}**", result["shardline"], guarantee


def _spread(values: Sequence[float]) -> str:
    return f"{_short(min(values))} ({_short(statistics.median(values))})"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= _TWO_DIGITS else f"{value:.1f}"


def readme_cells(result: Mapping[str, Any], name: str) -> str:
    """The last cells of a tool's row in the README: the best of the rounds."""
    measured = cost(result["files"][name])
    if measured is None:
        return "| not compared | | |"
    figures = _short(min(measured.per_million)), _short(min(measured.start))
    return f"| {figures[0]} | {figures[1]} | {measured.peak_mib:,.0f} MiB |"


_TWO_DIGITS = 10
_HEAD = ["tool", "version", "CPU-s per million", "start, CPU-s", "peak memory", "guarantee"]


def tables(result: Mapping[str, Any]) -> str:
    """Both tables as Markdown."""
    return (
        f"## A file to a local folder\n\n{_markdown(rows(result, 'files'))}\n"
        f"## A topic to S3\n\n{_markdown(rows(result, 'topics'))}"
    )


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    every = [_HEAD, ["---"] * len(_HEAD), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in every)


def peers_page(result: Mapping[str, Any]) -> str:
    """What is compared, both tables, and the licences."""
    small, large = result["documents"]
    licences = [[tool["title"], tool["version"], tool["licence"]] for tool in result["tools"].values()]
    listed = "".join(f"| {' | '.join(cells)} |\n" for cells in licences)
    rounds = "one round" if result["rounds"] == 1 else f"{result['rounds']} interleaved rounds"
    return f"""Measured on {result["date"]} on a machine with {result["cores"]} cores, which other
programs used too, with Python {result["python"]}, in {rounds}:
the best of the rounds, and the median in brackets. `make bench-peers` measures your machine.

- **The same rows.** Each tool reads the same documents of 2 KB, drops the one in ten whose score
  is too low, and writes JSONL. The rows of every run are compared as a multiset of hashes.
- **CPU** is that of the whole tree of processes. Each tool runs with {small:,} and with
  {large:,} documents: the difference is the cost per million documents, the rest is the start.
  On the JVM the start includes the time until the code is compiled.
- **Peak memory** is that of the tree of processes, with the larger number of documents.
- Each tool is used as its documentation recommends; the programs are in
  `tests/benchmarks/peers/`. Only guarantees of Shardline are tested by us.

{tables(result)}
In the second table the other tools read a topic with a document in each message. Shardline's
worker reads the topic of its producer, which has decoded and rendered the documents: so its
producer is in the table as well.

Flink and Spark write to a local folder only: the file system for S3 of Flink,
`flink-s3-fs-hadoop`, could not be had where this was measured.

## Licences

| tool | version | licence |
|---|---|---|
{listed}"""
