"""How a setting is declared."""

from typing import Any

from pydantic import Field


def setting(
    default: Any,
    meaning: str,
    *names: str,
    old: tuple[str, ...] = (),
    in_file: bool = False,
    **bounds: Any,
) -> Any:
    """A field of a settings model.

    Args:
        default: its default value.
        meaning: a phrase for docs/settings.md and the hints of errors.
        names: its environment names, the current one first.
        old: former names, which work with a warning.
        in_file: it is no secret and may stand in a file all the same, which NAME_FILE names.
        bounds: limits as in pydantic.Field.
    """
    extra: Any = {"names": list(names), "old": list(old), "in_file": in_file}
    return Field(default=default, description=meaning, json_schema_extra=extra, **bounds)
