"""How far a vector is from a query: exact, and the same on every machine.

Vectors are taken as the float32 values that the store holds. A product of two of them is exact in
float64, and `math.fsum` gives the exact sum rounded once, in whatever order it is added up. So
`cosine` and `ip` do not hang on a processor, a library or a block size; `l2` rounds each difference
once, as IEEE 754 says.

The result is rounded to 6 decimals: ChromaDB gives a vector of a cosine collection back as it was, or
scaled to length 1 and back in float32, depending on what its index has taken in. That moves a distance by
about 1e-9, and must not part documents of the same text, which are ordered by their ids. So a cosine
is computed by plain sums first, and exactly only where those do not decide to which side it is rounded.

| space | distance |
|---|---|
| cosine | 1 - q·v / (√(q·q) √(v·v)); 1 where a length is 0 |
| l2 | Σ (q - v)², the squared distance, as ChromaDB has it |
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
    """The distance to `query` in a space of SPACES; infinite for what is no vector of finite numbers."""
    origin = array("f", query)
    measure = {"cosine": _cosine, "l2": _squared, "ip": _inner}[space](origin)

    def distance(vector: Sequence[float]) -> float:
        try:
            values = array("f", vector)
            found = measure(values) if len(values) == len(origin) else math.inf
        except (TypeError, ValueError, OverflowError):
            return math.inf
        return round(found, DECIMALS) if math.isfinite(found) else math.inf

    return distance


def similarity(distance: float) -> float:
    """1 at the query. UDS3 shows 0 beyond a distance of 1; here it goes on below, as the order does."""
    return 1.0 - distance


_Measure = Callable[["array[float]"], float]


def _cosine(query: "array[float]") -> _Measure:
    length = math.sqrt(dot(query, query))

    def measure(vector: "array[float]") -> float:
        # Of n exact products, added up one by one, the error is at most n 2^-53 of the lengths' product
        # (Cauchy-Schwarz): for any number of dimensions that occurs, far below the slack.
        lengths = length * math.hypot(*vector)
        if not lengths:
            return 1.0
        near: float = 1.0 - sum(map(mul, query, vector)) / lengths
        if round(near - _SLACK, DECIMALS) == round(near + _SLACK, DECIMALS):
            return near
        return 1.0 - dot(query, vector) / (length * math.sqrt(dot(vector, vector)))

    return measure


def _squared(query: "array[float]") -> _Measure:
    def measure(vector: "array[float]") -> float:
        differences = list(map(sub, query, vector))
        return math.fsum(map(mul, differences, differences))

    return measure


def _inner(query: "array[float]") -> _Measure:
    return lambda vector: 1.0 - dot(query, vector)
