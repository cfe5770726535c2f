"""A statement of SQL with its parameters."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class SqlStatement:
    """A statement with the placeholders $1, $2 …, and their values."""

    text: str = ""
    values: list[Any] = field(default_factory=list)

    def add(self, value: object, cast: str) -> str:
        """Add a value. Returns its placeholder."""
        self.values.append(value)
        return f"${len(self.values)}::{cast}"
