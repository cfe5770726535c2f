"""Reports of checks that have several parts: one that fails does not hide what the others found."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from shardline_common.errors import ShardlineError, explain

_log = logging.getLogger(__name__)


async def report_all(parts: Sequence[Callable[[], Awaitable[str]]]) -> str:
    """Run all parts of a check, and join what they found.

    Raises:
        ShardlineError: a part failed. Its message has the errors with their hints, then what was found.
    """
    found: list[str] = []
    failed: list[str] = []
    for part in parts:
        try:
            found.append(await part())
        except ShardlineError as error:
            failed.append(explain(error))
        except Exception as error:  # noqa: BLE001 - whatever a client raises, the other parts are shown
            failed.append(explain(unexpected(error)))
    if failed:
        # Several parts may fail for the same reason.
        raise ShardlineError("; ".join([*dict.fromkeys(failed), *found]))
    return "; ".join(found)


def unexpected(error: Exception) -> ShardlineError:
    """The error of a check that raised what no check should raise. The traceback goes into the log."""
    _log.debug("a check failed unexpectedly", exc_info=error)
    text = " ".join(str(error).split())
    return ShardlineError(f"{type(error).__name__}: {text}", hint="report it as a bug")
