"""`make bench-filters`: CPU-seconds for a million documents of 2 KB, beside datatrove in the same run.

Both measure every rule of every document: a document that the first rule drops would cost next to nothing.

`--oracle` compares the reasons instead, document by document.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shardline_common.curation.filter import Rule
from shardline_common.curation.presets import PRESETS
from shardline_common.curation.registry import load_filter
from shardline_common.curation.text_facts import TextFacts
from tests.benchmarks.filters.oracle import OPEN, compare
from tests.benchmarks.filters.samples import english, german, of_two_kilobytes, spoilt
from tests.benchmarks.filters.trove import judge
from tests.benchmarks.peers.environments import CannotRun
from tests.corpus import SHARED

_FILTERS = (
    "gopher", "stop_words", "repetition", "fineweb", "c4", "symbols", "encoded", "damage", "navigation",
    "language",
)  # fmt: skip
_MILLION = 1_000_000


def main() -> None:
    """Print the table of costs, or that of reasons."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.filters")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spacy", type=int, default=100, help="so many documents with datatrove's own words")
    parser.add_argument("--corpus", type=Path, help="JSONL in .zst; default: the shared corpus or the sample")
    parser.add_argument("--oracle", action="store_true", help="compare reasons")
    asked = parser.parse_args()
    console = Console()
    if asked.oracle:
        _show_reasons(asked.documents, asked.corpus, console)
    else:
        console.print(f"texts of {_source(asked.corpus)}")
        _show_costs(of_two_kilobytes(asked.documents, asked.corpus), asked.rounds, asked.spacy, console)


def _show_costs(texts: Sequence[str], rounds: int, spacy: int, console: Console) -> None:
    mean = sum(len(text.encode()) for text in texts) / len(texts)
    console.print(f"{len(texts):,} documents of {mean:,.0f} bytes, minimum (median) of {rounds}")
    works: dict[str, Sequence[Rule]] = {name: _rules(name, {}) for name in _FILTERS}
    for preset, given in PRESETS.items():
        if given:
            works[f"preset {preset}, all rules"] = [
                rule for name, parameters in given.items() for rule in _rules(name, parameters)
            ]
    taken: dict[str, list[float]] = {name: [] for name in works}
    theirs: dict[tuple[str, str], list[float]] = {}
    documents = [{"text": text} for text in texts]
    for _ in range(rounds):
        for name, rules in works.items():
            taken[name].append(_cost(texts, rules))
        for words, some in (("plain", documents), ("spacy", documents[:spacy])):
            try:
                _, costs = judge(some, "de", words, OPEN)
            except CannotRun as error:
                console.print(f"datatrove: {error}")
                break
            for name, cost in costs.items():
                theirs.setdefault((name, words), []).append(cost / len(some) * _MILLION)
    table = Table("filter", "CPU-s per million", r"datatrove, \w+", "datatrove, spaCy")
    for name, costs_of_one in taken.items():
        table.add_row(
            name,
            _figure(costs_of_one),
            *[_figure(theirs.get((name, words), [])) for words in ("plain", "spacy")],
        )
    console.print(table)


def _source(corpus: Path | None) -> str:
    return str(corpus or (SHARED if SHARED.exists() else "the sample, which is made up and in English"))


def _rules(name: str, parameters: Mapping[str, object]) -> list[Rule]:
    kind = load_filter(name)
    found = kind.rules(kind.parameters(**parameters), {})
    return [rule for rule in found if rule.least is not None or rule.most is not None]


def _cost(texts: Sequence[str], rules: Sequence[Rule]) -> float:
    """What it costs to measure all rules, as for documents that every rule keeps."""
    started = time.process_time()
    for text in texts:
        facts = TextFacts(text, {})
        for rule in rules:
            rule.measure(facts)
    return (time.process_time() - started) / len(texts) * _MILLION


def _figure(costs: Sequence[float]) -> str:
    return f"{min(costs):,.0f} ({statistics.median(costs):,.0f})" if costs else "-"


def _show_reasons(count: int, corpus: Path | None, console: Console) -> None:
    # Without the corpus, the documents are made up, and in English: their German rows would say nothing.
    console.print(f"texts of {_source(corpus)}; English: docstrings of Python's library")
    table = Table("texts", "filter", "documents", "dropped", "same", "differences by cause", "unexplained")
    for title, texts, language in (
        ("corpus", german(count, corpus), "de"),
        ("corpus, spoilt", spoilt(german(count, corpus)), "de"),
        ("English", english(count), "en"),
        ("English, spoilt", spoilt(english(count)), "en"),
    ):
        for name, one in compare(texts, language).items():
            causes = "; ".join(f"{number} {cause}" for cause, number in one.causes.most_common())
            table.add_row(
                title,
                name,
                str(one.documents),
                str(one.dropped),
                str(one.agreed),
                causes,
                str(len(one.unexplained)),
            )
            for text, ours, theirs in one.unexplained[:3]:
                console.print(f"{title}, {name}: {ours} here, {theirs} there: {text[:200]!r}", markup=False)
    console.print(table)


if __name__ == "__main__":
    main()
