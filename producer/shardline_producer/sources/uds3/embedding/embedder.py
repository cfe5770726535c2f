"""Embedders: the text of a query as a vector, made by the model that the collection was filled with."""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Protocol

from shardline_common.errors import FailureCode, JobFailed


class Embedder(Protocol):
    """Makes vectors of texts."""

    @property
    def identity(self) -> str:
        """The model and how it is run, for the plan: another identity may rank differently."""

    async def embed(self, text: str) -> Sequence[float]:
        """The vector of a text.

        Raises:
            SourceUnavailable: the service that makes it is away.
            JobFailed: there is no model, or it does not work (`source_invalid`); says what to install.
        """


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """Which model, and where it is: a service's URL, else a folder with an ONNX model, else by its name."""

    model: str = "all-MiniLM-L6-v2"
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    path: Path | None = None
    timeout: float = 30.0


def no_model(message: str, hint: str) -> JobFailed:
    """The error of a model that is not there."""
    return JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint)


def optional(package: str, install: str) -> ModuleType:
    """Import a package that not every installation has.

    Raises:
        JobFailed: it is not installed, or does not load.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise no_model(f"the package {package} cannot be loaded: {error}", install) from error


def pooled(tokens: Sequence[Sequence[float]], mask: Sequence[int]) -> list[float]:
    """The mean of the vectors of those tokens whose mask is 1; zeros where there are none."""
    chosen = [vector for vector, counts in zip(tokens, mask, strict=True) if counts]
    if not chosen:
        return [0.0] * len(tokens[0]) if tokens else []
    return [math.fsum(column) / len(chosen) for column in zip(*chosen, strict=True)]


def unit(vector: Sequence[float]) -> list[float]:
    """The vector with length 1 (L2); zeros stay zeros."""
    length = math.sqrt(math.fsum(value * value for value in vector))
    return [value / length for value in vector] if length else list(vector)
