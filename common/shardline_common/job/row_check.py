"""The check of parsed rows against the schema of their dataset."""

from typing import Any

from shardline_common.job.columns import EXTRA, Columns, fits

_ROW_TYPES = {
    "text": str,
    "metadata": dict,
    "source": str,
    "quality_score": float,
    "document_id": str,
    "relevance_score": float,
}
_KEYS = list(_ROW_TYPES)
# A dataset has few combinations of types, but a damaged one may have any number.
_MAX_KNOWN = 1000


class RowCheck:
    """Checks rows, which were parsed by orjson, against the columns of a dataset."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._names = [*columns.types, EXTRA]
        # The value of an integer decides whether it fits, that of text and of orjson's floats does not.
        self._with_integers = [name for name, kind in columns.types.items() if kind in ("int", "float")]
        self._sound = set[tuple[type, ...]]()

    def problem(self, row: object) -> str | None:
        """The first difference between a row and the schema, as a sentence; None when there is none."""
        # Every row of a dataset passes here. Comparing each type is faster than a list of the types.
        if type(row) is not dict or [*row] != _KEYS:
            return f"its keys are not {', '.join(_KEYS)}"
        text, metadata, source, quality, document_id, relevance = row.values()
        if not (
            type(text) is str
            and type(metadata) is dict
            and type(source) is str
            and type(quality) is float
            and type(document_id) is str
            and type(relevance) is float
        ):
            return _wrong_type(row)
        if [*metadata] != self._names:
            return "its metadata has other columns than the dataset"
        types = tuple(map(type, metadata.values()))
        if types in self._sound:
            return self._wrong_value(metadata, self._with_integers) if self._with_integers else None
        problem = self._wrong_value(metadata, self._names)
        if problem is None and len(self._sound) < _MAX_KNOWN:
            self._sound.add(types)
        return problem

    def _wrong_value(self, metadata: dict[str, Any], names: list[str]) -> str | None:
        for name in names:
            value, kind = metadata[name], self._columns.types.get(name, "string")
            if value is not None and not fits(value, kind):
                return f"metadata.{name} is not a {kind}"
        return None


def _wrong_type(row: dict[str, Any]) -> str:
    for name, kind in _ROW_TYPES.items():
        if type(row[name]) is not kind:
            return (
                "its metadata has other columns than the dataset"
                if name == "metadata"
                else f"{name} is not a {kind.__name__}"
            )
    raise AssertionError(row)
