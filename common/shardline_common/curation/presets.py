"""The presets of `quality.preset`: the filters of each with their parameters, in the order of asking.

Presets use filters of Shardline alone, and no package of an extra, so that they give the same rows next year.
docs/filters.md has them as tables.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

PresetName = Literal["clara", "web-de", "web-en", "legal-de", "strict"]
PRESET_NAMES: Final = get_args(PresetName)

PRESETS: Final[Mapping[PresetName, Mapping[str, Mapping[str, Any]]]] = {
    "clara": {},
    "web-de": {"length": {"min_chars": 200, "min_words": 50, "max_words": 100_000}},
    "web-en": {"length": {"min_chars": 200, "min_words": 50, "max_words": 100_000}},
    "legal-de": {"length": {"min_chars": 40, "min_words": 5, "max_words": 200_000}},
    "strict": {"length": {"min_chars": 500, "min_words": 100, "max_words": 100_000}},
}
