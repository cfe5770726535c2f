"""`python -m tests.benchmarks.near_duplicates`: what `minhash-v1` finds, beside every pair that there is.

The truth is the Jaccard similarity of sets of word 5-grams, for all pairs: the prefix filter leaves
out no pair of at least 0.8. Of a cluster the smallest position stays, as in an assembled dataset.
"""

import argparse
import random
import re
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import combinations
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shardline_common.assembly.content_hash import content_hash
from shardline_common.assembly.minhash import Signer, equal_components
from shardline_common.assembly.words import words_of
from shardline_common.job.blank import is_blank
from tests.corpus import corpus_file, lines

SHINGLE = 5
THRESHOLD = 0.8
Pair = tuple[int, int]
Sets = list[frozenset[int]]


@dataclass(frozen=True)
class Text:
    """A document by its position in the corpus."""

    document_id: str
    text: str


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.near_duplicates")
    parser.add_argument("--corpus", type=Path, help="JSONL in .zst; default: the shared corpus or the sample")
    parser.add_argument("--documents", type=int, help="only the first so many")
    parser.add_argument("--clusters", type=int, default=20, help="how many random clusters are printed")
    asked = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="shardline-bench-") as folder:
        found = lines(asked.corpus or corpus_file(Path(folder)))[: asked.documents]
    texts = [Text(one["document_id"], one["content"]) for one in found if not is_blank(one["content"])]
    console.print(f"{len(found):,} documents, {len(texts):,} of them not blank")
    kept = exact_duplicates(texts, console)
    signer = Signer(14, 8, 0)
    started = time.process_time()
    signatures = [signer.sign(one.text) for one in kept]
    cost = (time.process_time() - started) / len(kept) * 1e6
    console.print(f"signing: {cost:.0f} CPU-s per million; {signatures.count(None):,} have under 5 words\n")
    for name, words in (("words of minhash-v1", words_of), (r"words by \w+, lower case", plain_words)):
        sets = [shingles(words(one.text)) for one in kept]
        truth = similar_pairs(sets)
        near = Near(signer, signatures)
        console.print(pair_table(f"pairs, truth by {name}", sets, truth, near))
        console.print(drop_table(f"dropped, truth by {name}", sets, truth, near))
        if words is words_of:
            show_clusters(kept, sets, near, asked.clusters, console)


def exact_duplicates(texts: Sequence[Text], console: Console) -> list[Text]:
    """Compare the content hashes with the texts themselves; return the first of each text."""
    first: dict[bytes, int] = {}
    by_hash = [first.setdefault(content_hash(one.text), place) for place, one in enumerate(texts)]
    seen: dict[str, int] = {}
    by_text = [
        seen.setdefault(" ".join(one.text.split()), place) for place, one in enumerate(texts)
    ]  # without NFC: the corpus has 0 texts that it changes, or the two lists differ
    duplicates = sum(place != one for place, one in enumerate(by_hash))
    console.print(f"exact duplicates: {duplicates:,}; as by comparing the texts: {by_hash == by_text}")
    return [texts[place] for place, one in enumerate(by_hash) if place == one]


def plain_words(text: str) -> list[bytes]:
    """Words as a stranger would cut them."""
    return [word.encode() for word in re.findall(r"\w+", text.lower())]


def shingles(words: Sequence[bytes]) -> frozenset[int]:
    """The set of 5-grams, each as 8 bytes of a hash that `minhash-v1` does not use."""
    starts = range(len(words) - SHINGLE + 1)
    joined = (b" ".join(words[start : start + SHINGLE]) for start in starts)
    return frozenset(int.from_bytes(blake2b(one, digest_size=8).digest(), "little") for one in joined)


def similarity(sets: Sets, pair: Pair) -> float:
    """Jaccard: what two sets share of what they have together."""
    left, right = sets[pair[0]], sets[pair[1]]
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared) if shared else 0.0


def similar_pairs(sets: Sets) -> dict[Pair, float]:
    """Every pair of at least 0.8.

    Two such sets share an element of their prefixes: of the rarest elements of each, as many as may be
    missing in the other, and one more.
    """
    frequency = Counter(element for one in sets for element in one)
    posted: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(sets):
        ordered = sorted(one, key=lambda element: (frequency[element], element))
        # In integers: 4 of 5 must be shared.
        for element in ordered[: len(one) - -(-len(one) * 4 // 5) + 1] if one else ():
            posted[element].append(place)
    candidates = {pair for places in posted.values() for pair in combinations(places, 2)}
    measured = ((pair, similarity(sets, pair)) for pair in candidates)
    return {pair: value for pair, value in measured if value >= THRESHOLD}


class Near:
    """What the bands of signatures say."""

    def __init__(self, signer: Signer, signatures: Sequence[bytes | None]) -> None:
        self._signer = signer
        self._signatures = signatures
        self._members: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, signature in enumerate(signatures):
            for band in signer.bands(signature) if signature else ():
                self._members[band].append(place)

    def estimate(self, pair: Pair) -> float:
        """The share of equal values."""
        left, right = (self._signatures[place] or b"" for place in pair)
        return equal_components(left, right) / self._signer.permutations

    def pairs(self, verify: float | None) -> set[Pair]:
        """All pairs with an equal band."""
        found = {pair for places in self._members.values() for pair in combinations(places, 2)}
        return found if verify is None else {pair for pair in found if self.estimate(pair) >= verify}

    def clusters(self, verify: float | None) -> dict[int, list[int]]:
        """The clusters as an assembled dataset decides them: each member's edge goes to its band's first."""
        edges = {(places[0], place) for places in self._members.values() for place in places[1:]}
        if verify is not None:
            edges = {edge for edge in edges if self.estimate(edge) >= verify}
        return components(edges)


def components(edges: Iterable[Pair]) -> dict[int, list[int]]:
    """The smallest position of each component, and its members in order."""
    parent: dict[int, int] = {}

    def root(place: int) -> int:
        while (above := parent.setdefault(place, place)) != place:
            parent[place] = parent[above]
            place = above
        return place

    for left, right in edges:
        first, second = sorted((root(left), root(right)))
        parent[second] = first
    found = defaultdict(list)
    for place in sorted(parent):
        found[root(place)].append(place)
    return dict(found)


VARIANTS: tuple[tuple[str, float | None], ...] = (("14 x 8", None), ("14 x 8, verify 0.8", 0.8))


def pair_table(title: str, sets: Sets, truth: dict[Pair, float], near: Near) -> Table:
    """Recall and precision over pairs, and the recall by similarity."""
    steps = (0.8, 0.85, 0.9, 0.95, 1.0)
    table = Table(title=f"{title}: {len(truth):,} of at least 0.8")
    heads = [f"recall {low:.2f} to {high:.2f}" for low, high in zip(steps, (*steps[1:], 1.0), strict=True)]
    heads[-1] = "recall 1.00"
    for head in ("", "found", "recall", "precision", "below 0.7", "below 0.5", *heads):
        table.add_column(head, justify="right")
    for name, verify in VARIANTS:
        found = near.pairs(verify)
        values = [similarity(sets, pair) for pair in found]
        shown = [
            f"{len(found):,}",
            share(len(found & truth.keys()), len(truth)),
            share(sum(value >= THRESHOLD for value in values), len(found)),
            share(sum(value < 0.7 for value in values), len(found)),
            share(sum(value < 0.5 for value in values), len(found)),
        ]
        for low, high in zip(steps, (*steps[1:], 2.0), strict=True):
            there = {pair for pair, value in truth.items() if low <= value < high}
            shown.append(share(len(there & found), len(there)))
        table.add_row(name, *shown)
    return table


def drop_table(title: str, sets: Sets, truth: dict[Pair, float], near: Near) -> Table:
    """Recall and precision over dropped documents, and how like they are to what stays."""
    expected = components(truth)
    should = {place for first, places in expected.items() for place in places if place != first}
    partners: dict[int, list[int]] = defaultdict(list)
    for left, right in truth:
        partners[left].append(right)
        partners[right].append(left)
    table = Table(title=f"{title}: {len(should):,} in {len(expected):,} clusters")
    heads = ("dropped", "clusters", "recall", "precision", "with any of 0.8", "like the kept ≥ 0.8", "< 0.5")
    for head in ("", *heads):
        table.add_column(head, justify="right")
    for name, verify in VARIANTS:
        clusters = near.clusters(verify)
        of = {place: first for first, places in clusters.items() for place in places if place != first}
        values = [similarity(sets, (first, place)) for place, first in of.items()]
        table.add_row(
            name,
            f"{len(of):,}",
            f"{len(clusters):,}",
            share(len(of.keys() & should), len(should)),
            share(len(of.keys() & should), len(of)),
            share(sum(place in partners for place in of), len(of)),
            share(sum(value >= THRESHOLD for value in values), len(of)),
            share(sum(value < 0.5 for value in values), len(of)),
        )
    return table


def share(part: int, whole: int) -> str:
    """A percentage."""
    return f"{part / whole:.2%}" if whole else "—"


def show_clusters(kept: Sequence[Text], sets: Sets, near: Near, count: int, console: Console) -> None:
    """The ten largest clusters and random ones, for a person to judge."""
    for name, verify in VARIANTS:
        clusters = sorted(near.clusters(verify).values(), key=lambda places: (-len(places), places))
        show = partial(show_cluster, kept, sets, console)
        console.rule(f"{name}: the ten largest of {len(clusters):,} clusters")
        list(map(show, clusters[:10]))
        console.rule(f"{name}: {count} at random")
        list(map(show, random.Random(0).sample(clusters, min(count, len(clusters)))))


def show_cluster(kept: Sequence[Text], sets: Sets, console: Console, places: Sequence[int]) -> None:
    """A cluster's size, its similarities to what is kept, and the beginnings of some texts."""
    values = sorted(similarity(sets, (places[0], place)) for place in places[1:])
    figures = f"Jaccard with the first {values[0]:.2f} … {statistics.median(values):.2f} … {values[-1]:.2f}"
    console.print(f"[bold]{len(places)} texts[/bold], {figures}", highlight=False)
    least = min(places[1:], key=lambda place: similarity(sets, (places[0], place)))
    for place in dict.fromkeys((places[0], least, places[-1])):
        one = kept[place]
        text = " ".join(one.text.split())
        shown = f"  {one.document_id} ({len(text):,}): {text[:150]}"
        console.print(shown, markup=False, highlight=False, soft_wrap=True)


_Words = Callable[[str], list[bytes]]

if __name__ == "__main__":
    main()
