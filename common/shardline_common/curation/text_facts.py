"""The facts of a document that filters share: each is computed once, and only when a filter asks for it."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any


class TextFacts:
    """The text of a document, its metadata, and what is counted in it."""

    def __init__(self, text: str, metadata: Mapping[str, Any]) -> None:
        self.text = text
        self.metadata = metadata

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text, which a line feed divides, without their ends."""
        return self.text.split("\n")
