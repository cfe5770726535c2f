"""Vectors for the vector search: the real ones of the corpus where they are there, else made up.

All are float16 numbers, so that distances can be told exactly, by whole numbers.
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
    """Documents and queries with their vectors of unit length."""

    ids: list[str]
    embeddings: "np.ndarray[Any, np.dtype[np.float16]]"
    queries: list[str]
    query_embeddings: "np.ndarray[Any, np.dtype[np.float16]]"

    def squared_distances(self, query: int, sign: int = 1) -> list[float]:
        """Of every document, or of its opposite: from exact whole numbers."""
        differences = _whole(self.query_embeddings[query]) - sign * _whole(self.embeddings)
        return [square / _ONE for square in (differences * differences).sum(axis=1).tolist()]

    def cosine_distances(self, query: int) -> list[float]:
        """Of every document."""
        documents, vector = _whole(self.embeddings), _whole(self.query_embeddings[query])
        dots = (documents @ vector).tolist()
        lengths = [math.sqrt(square / _ONE) for square in (documents * documents).sum(axis=1).tolist()]
        own = math.sqrt(int(vector @ vector) / _ONE)
        return [1.0 - (dot / _ONE) / (own * length) for dot, length in zip(dots, lengths, strict=True)]


_ONE = 1 << (2 * _SCALE)


def _whole(values: "np.ndarray[Any, np.dtype[np.float16]]") -> "np.ndarray[Any, np.dtype[np.int64]]":
    # Every float16 is a multiple of 2^-24; sums of 384 products of such, up to 1 each, fit into 63 bits.
    return (values.astype(np.float64) * (1 << _SCALE)).astype(np.int64)


def load_vectors() -> Vectors:
    """The corpus's vectors, else made-up ones of the sample's ids."""
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
