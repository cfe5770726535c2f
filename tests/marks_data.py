"""Values of the fields that mark a document as deleted, and whether each of them marks it."""

from typing import Any

FLAG_VALUES: list[tuple[Any, bool]] = [
    *(
        (value, True)
        for value in (True, 1, 1.0, 2, "true", "TRUE", " Yes ", "y", "t", "on", "1", "1.0", "01")
    ),
    *(
        (value, False)
        for value in (None, False, 0, 0.0, "", " ", "false", "no", "0", "0.0", "null", "NaN", "x")
    ),
]
TIME_VALUES: list[tuple[Any, bool]] = [
    *((value, True) for value in ("2024-01-01", "2999-01-01T00:00:00Z", 1704067200, 0.5, True, "yes", "1")),
    *((value, False) for value in (None, False, 0, 0.0, -0.0, "", "  ", "0", "0.00", "-0", "False", "NO")),
    *(
        (value, False)
        for value in ("null", "None", " nil ", "NaN", "NaT", "undefined", "infinity", "[]", "{}")
    ),
]
STATUS_VALUES: list[tuple[Any, bool]] = [
    *((value, True) for value in ("deleted", "FAILED", "archived", " deleted ")),
    *((value, False) for value in (None, "", "completed", "undeleted", 0, False)),
]
MARKS: list[tuple[dict[str, Any], bool]] = [
    ({name: value}, marks)
    for name, values in (
        ("deleted", FLAG_VALUES),
        ("is_deleted", FLAG_VALUES),
        ("deleted_at", TIME_VALUES),
        ("processing_status", STATUS_VALUES),
    )
    for value, marks in values
]
EXPECTED = {f"m{number:03d}" for number, (_, marks) in enumerate(MARKS) if marks}
