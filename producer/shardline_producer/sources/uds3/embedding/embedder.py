"""The port of embedders, and what they share."""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Protocol

from shardline_common.errors import FailureCode, JobFailed


class Embedder(Protocol):
    """Turns a text into a vector, by the model that the collection was filled with."""

    @property
    def identity(self) -> str:
        """The model and its runtime, for the plan. With another identity the ranking may differ."""

    async def embed(self, text: str) -> Sequence[float]:
        """The vector of a text.

        Raises:
            SourceUnavailable: the embedding service cannot be reached.
            JobFailed: the model is missing or does not work (`source_invalid`).
        """


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """The model, and what runs it: the service at `url`, else ONNX in the folder `path`, else its name.

    `timeout` is in seconds.
    """

    model: str = "all-MiniLM-L6-v2"
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    path: Path | None = None
    timeout: float = 30.0


def model_error(message: str, hint: str) -> JobFailed:
    """The error of a model that is missing or does not work."""
    return JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint)


def import_optional(package: str, hint: str) -> ModuleType:
    """Import a package that Shardline does not require. `hint` is that of the error.

    Raises:
        JobFailed: the package is not installed, or its import fails.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise model_error(f"the package {package} cannot be loaded: {error}", hint) from error


def mean_pooled(tokens: Sequence[Sequence[float]], mask: Sequence[int]) -> list[float]:
    """The mean of the vectors of tokens whose mask is 1; zeros if there is none."""
    chosen = [vector for vector, counts in zip(tokens, mask, strict=True) if counts]
    if not chosen:
        return [0.0] * len(tokens[0]) if tokens else []
    return [math.fsum(column) / len(chosen) for column in zip(*chosen, strict=True)]


def normalized(vector: Sequence[float]) -> list[float]:
    """The vector scaled to length 1 (L2); a zero vector is unchanged."""
    length = math.sqrt(math.fsum(value * value for value in vector))
    return [value / length for value in vector] if length else list(vector)
