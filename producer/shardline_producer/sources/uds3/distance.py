"""Distances between vectors: exact, and the same on every machine.

Vectors are taken as the float32 values that the store holds. A product of two such values is exact in
float64, and `math.fsum` returns the exact sum, rounded once, in any order of the terms. So `cosine` and `ip`
do not depend on a processor, a library or a block size. `l2` rounds each difference once, as IEEE 754
defines.

Results are rounded to 6 decimals. ChromaDB returns a vector of a cosine collection as it was stored, or
scaled to length 1 and back in float32, depending on the state of its index. That changes a distance by about
1e-9. Without the rounding it would reorder documents of the same text, which are ordered by their ids.
So a cosine is computed by plain sums first, and exactly only if the plain result is so close to a rounding
boundary that its error could matter.

| space | distance |
|---|---|
| cosine | 1 - q·v / (√(q·q) √(v·v)); 1 where a length is 0 |
| l2 | Σ (q - v)², the squared distance, as ChromaDB defines it |
| ip | 1 - q·v |
"""

import math
from array import array
from collections.abc import Callable, Sequence
from operator import mul, sub

SPACES = ("cosine", "l2", "ip")
DECIMALS = 6
_SLACK = 1e-9


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """The scalar product of two vectors of float32 values, rounded once."""
    return math.fsum(map(mul, left, right))


def distance_from(query: Sequence[float], space: str) -> Callable[[Sequence[float]], float]:
    """A function of the distance to `query` in a space of SPACES.

    It returns infinity for a value that is not a vector of finite numbers with the query's dimension.
    """
    origin = array("f", query)
    measure = {"cosine": _cosine, "l2": _squared, "ip": _inner_product}[space](origin)

    def distance(vector: Sequence[float]) -> float:
        try:
            values = array("f", vector)
            found = measure(values) if len(values) == len(origin) else math.inf
        except (TypeError, ValueError, OverflowError):
            return math.inf
        return round(found, DECIMALS) if math.isfinite(found) else math.inf

    return distance


def query_fault(query: Sequence[float], space: str) -> str | None:
    """Why no vector can be compared with a query in a space of SPACES; None if vectors can be.

    Without this check every distance would be infinite, or the same, and the search would find nothing, or
    everything in the order of ids.
    """
    for place, value in enumerate(query, 1):
        if not math.isfinite(value):
            return f"its value {place} is {value}"
        if not math.isfinite(array("f", (value,))[0]):
            return f"its value {place} is {value}, which is beyond float32"
    if space == "cosine" and not any(array("f", query)):
        return "all its values are 0, so that it has no direction"
    return None


def similarity(distance: float) -> float:
    """The score of a hit: 1 at the query. It is negative beyond a distance of 1, where UDS3 shows 0."""
    return 1.0 - distance


_Measure = Callable[["array[float]"], float]


def _cosine(query: "array[float]") -> _Measure:
    length = math.sqrt(dot(query, query))

    def measure(vector: "array[float]") -> float:
        # The error of a plain sum of n exact products is at most n 2^-53 of the product of the lengths
        # (Cauchy-Schwarz): far below the slack for all dimensions that occur.
        lengths = length * math.hypot(*vector)
        if not lengths:
            return 1.0
        plain: float = 1.0 - sum(map(mul, query, vector)) / lengths
        if round(plain - _SLACK, DECIMALS) == round(plain + _SLACK, DECIMALS):
            return plain
        return 1.0 - dot(query, vector) / (length * math.sqrt(dot(vector, vector)))

    return measure


def _squared(query: "array[float]") -> _Measure:
    def measure(vector: "array[float]") -> float:
        differences = list(map(sub, query, vector))
        return math.fsum(map(mul, differences, differences))

    return measure


def _inner_product(query: "array[float]") -> _Measure:
    return lambda vector: 1.0 - dot(query, vector)
