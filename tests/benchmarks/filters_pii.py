"""`python -m tests.benchmarks.filters_pii`: what personal data, secrets and evaluation texts cost.

CPU-seconds per million documents of 2 KB, the minimum of interleaved rounds. `laws` is the corpus, which has
nearly no personal data; `letters` are its texts with four findings in each 2 KB.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shardline_common.assembly.words import words_of
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters import contaminated, secrets
from shardline_consumer.pii import KINDS, find, redact
from tests.corpus import corpus_file, lines

DOCUMENT = 2_048
LETTER = (
    "\nIhre Ansprechpartnerin: max.mustermann@example.com, Tel. 030 23125-678, "
    "IBAN DE89 3704 0044 0532 0130 00, Steuer-ID 86 095 742 719\n"
)
EVALUATION_TEXTS = 1_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.filters_pii")
    parser.add_argument("--corpus", type=Path, help="JSONL in .zst; default: the shared corpus or the sample")
    parser.add_argument("--every", type=int, default=10, help="take every so many documents of the corpus")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shardline-bench-") as folder:
        corpus = [one["content"] for one in lines(asked.corpus or corpus_file(Path(folder)))]
        laws = corpus[:: asked.every]
        letters = [law[:DOCUMENT] + LETTER for law in laws if len(law) > DOCUMENT // 2]
        lists = Path(folder) / "evaluation.jsonl"
        lists.write_text(
            "\n".join(
                json.dumps({"text": " ".join(law.split()[:40])})
                for law in corpus[1 :: asked.every][:EVALUATION_TEXTS]
            )
        )
        costs = _costs(_works(lists), {"laws": laws, "letters": letters}, asked.rounds)
    table = Table("what", *(f"{name}, CPU-s/M" for name in ("laws", "letters")))
    for name, values in costs.items():
        table.add_row(name, *(f"{value:,.0f}" for value in values))
    Console().print(table)


def _works(lists: Path) -> dict[str, Callable[[str], object]]:
    works: dict[str, Callable[[str], object]] = {"pii: find, all kinds": find, "pii: redact": redact}
    for kind in KINDS:
        works[f"pii: {kind} and what takes before"] = lambda text, kind=kind: find(text, {kind})  # type: ignore[misc]
    of_secrets = secrets.FILTER.rules(secrets.Secrets(), {})
    works["secrets"] = lambda text: [rule.measure(TextFacts(text, {})) for rule in of_secrets]
    works["words alone"] = words_of
    parameters = contaminated.Contaminated(lists={"evaluation": "evaluation.jsonl"})
    (of_lists,) = contaminated.FILTER.rules(parameters, {"evaluation": lists})
    works["contaminated, with words"] = lambda text: of_lists.measure(TextFacts(text, {}))
    return works


def _costs(
    works: dict[str, Callable[[str], object]], texts: dict[str, Sequence[str]], rounds: int
) -> dict[str, list[float]]:
    """CPU-seconds per million documents of each work on each kind of text."""
    best: dict[tuple[str, str], float] = {}
    for _ in range(rounds):
        for kind, own in texts.items():
            size = sum(map(len, own))
            for name, work in works.items():
                started = time.process_time()
                for text in own:
                    work(text)
                cost = (time.process_time() - started) / size * DOCUMENT * 1e6
                best[name, kind] = min(cost, best.get((name, kind), cost))
    return {name: [best[name, kind] for kind in texts] for name in works}


if __name__ == "__main__":
    main()
