"""How a setting is declared: its default, its meaning, its names in the environment."""

from typing import Any

from pydantic import Field


def setting(default: Any, meaning: str, *names: str, old: tuple[str, ...] = (), **bounds: Any) -> Any:
    """A field: its environment names, the first one current; `old` ones work with a warning."""
    extra: Any = {"names": list(names), "old": list(old)}
    return Field(default=default, description=meaning, json_schema_extra=extra, **bounds)
