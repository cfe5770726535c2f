"""Vectors for the vector search: those of the corpus if it is present, else random ones.

All are float16 numbers, so that integers give their exact distances.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(__file__).parent.parent.parent / "shared" / "corpus" / "embeddings.npz"
_DOCUMENTS, _DIMENSION, _QUERIES = 5000, 384, 12
_SCALE = 24


@dataclass(frozen=True)
class Vectors:
    """Documents and queries with their vectors, all of length 1."""

    ids: list[str]
    embeddings: "np.ndarray[Any, np.dtype[np.float16]]"
    queries: list[str]
    query_embeddings: "np.ndarray[Any, np.dtype[np.float16]]"

    def squared_distances(self, query: int, sign: int = 1) -> list[float]:
        """The squared distance of each document, or with sign -1 of its opposite, from exact integers."""
        differences = _integers(self.query_embeddings[query]) - sign * _integers(self.embeddings)
        return [square / _ONE for square in (differences * differences).sum(axis=1).tolist()]

    def cosine_distances(self, query: int) -> list[float]:
        """The cosine distance of each document."""
        documents, vector = _integers(self.embeddings), _integers(self.query_embeddings[query])
        dots = (documents @ vector).tolist()
        lengths = [math.sqrt(square / _ONE) for square in (documents * documents).sum(axis=1).tolist()]
        own = math.sqrt(int(vector @ vector) / _ONE)
        return [1.0 - (dot / _ONE) / (own * length) for dot, length in zip(dots, lengths, strict=True)]


_ONE = 1 << (2 * _SCALE)


def _integers(values: "np.ndarray[Any, np.dtype[np.float16]]") -> "np.ndarray[Any, np.dtype[np.int64]]":
    # Each float16 is a multiple of 2^-24. The sum of 384 products of values up to 1 fits into 63 bits.
    return (values.astype(np.float64) * (1 << _SCALE)).astype(np.int64)


def load_vectors() -> Vectors:
    """The vectors of the corpus, else random vectors for the ids of the sample."""
    if SHARED.exists():
        with np.load(SHARED) as stored:
            return Vectors(
                [str(one) for one in stored["document_id"]],
                stored["embedding"],
                [str(one) for one in stored["query"]],
                stored["query_embedding"],
            )
    random = np.random.default_rng(1)
    ids = [f"sample-{number:08d}" for number in range(_DOCUMENTS)]
    queries = [f"Frage {number}" for number in range(_QUERIES)]
    return Vectors(ids, _unit(random, _DOCUMENTS), queries, _unit(random, _QUERIES))


def _unit(random: "np.random.Generator", count: int) -> "np.ndarray[Any, np.dtype[np.float16]]":
    values = random.normal(size=(count, _DIMENSION))
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(unit, dtype=np.float16)
