"""A row without personal data: placeholders stand for it in its text and its metadata."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from shardline_common.job.columns import EXTRA, extra_text
from shardline_consumer.filters.pii import count_kinds, name_prefix
from shardline_consumer.pii import Known, redact


class Redactor:
    """Redacts rows. `kinds` are those that are looked for."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = tuple(kinds)

    def redact(self, text: str, metadata: Mapping[str, Any]) -> tuple[str, dict[str, Any], Counter[str]]:
        """The text and the metadata of a row without personal data, and how much of each kind was replaced.

        A value has the same placeholder everywhere in a document. An integer of a column becomes null,
        because a column has one type.
        """
        known: Known = {}
        counts = Counter[str]()
        text = self._text(text, known, counts)
        return (
            text,
            {name: self._column(name, value, known, counts) for name, value in metadata.items()},
            counts,
        )

    def count(self, text: str, metadata: Mapping[str, Any]) -> Counter[str]:
        """How much of each kind a row has."""
        return count_kinds(text, metadata, self._kinds)

    def _text(self, text: str, known: Known, counts: Counter[str]) -> str:
        redacted = redact(text, self._kinds, known)
        counts.update(redacted.counts)
        return redacted.text

    def _named(self, name: str, text: str, known: Known, counts: Counter[str]) -> str:
        """The text of a field, whose name says what it is: `telefon` makes a number one of a phone."""
        prefix = name_prefix(name)
        redacted = redact(prefix + text, self._kinds, known)
        if not redacted.text.startswith(prefix):
            return self._text(text, known, counts)
        counts.update(redacted.counts)
        return redacted.text.removeprefix(prefix)

    def _column(self, name: str, value: Any, known: Known, counts: Counter[str]) -> Any:
        if isinstance(value, str):
            is_extra = name == EXTRA
            return self._extra(value, known, counts) if is_extra else self._named(name, value, known, counts)
        if isinstance(value, int) and not isinstance(value, bool):
            return None if self._named(name, str(value), known, counts) != str(value) else value
        return value

    def _extra(self, text: str, known: Known, counts: Counter[str]) -> str:
        """The JSON of the fields without a column: a placeholder for a number would break it as a text."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            return self._text(text, known, counts)
        before = counts.total()
        redacted = self._value(fields, known, counts)
        # As it was, where nothing was found: to parse and to write it again may change its numbers.
        return text if counts.total() == before else extra_text(redacted)

    def _value(self, value: Any, known: Known, counts: Counter[str], name: str = "") -> Any:
        if isinstance(value, str):
            return self._named(name, value, known, counts) if name else self._text(value, known, counts)
        if isinstance(value, dict):
            return {
                self._text(key, known, counts): self._value(one, known, counts, key)
                for key, one in value.items()
            }
        if isinstance(value, list):
            return [self._value(one, known, counts, name) for one in value]
        if isinstance(value, int) and not isinstance(value, bool):
            text = self._value(str(value), known, counts, name)
            return value if text == str(value) else text
        return value
