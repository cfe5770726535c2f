"""The loop of a sweep: housekeeping that is repeated, and whose errors end no job."""

import logging
from collections.abc import Awaitable, Callable

from shardline_common.errors import ServiceUnavailable
from shardline_common.ports.clock import Clock
from shardline_common.runtime.task_group import no_foreign_cancel
from shardline_common.runtime.unexpected import UnexpectedErrors

_log = logging.getLogger(__name__)


async def repeat_sweep(
    sweep: Callable[[], Awaitable[None]], what: str, clock: Clock, seconds: float, errors: UnexpectedErrors
) -> None:
    """Sweep every `seconds`, until cancelled.

    Args:
        sweep: one sweep.
        what: what is swept, for the log.
        clock: sleeps between sweeps.
        seconds: the interval.
        errors: logs what nobody has foreseen; the next sweep follows.
    """
    while True:
        await clock.sleep(seconds)
        try:
            with no_foreign_cancel():
                await sweep()
        except ServiceUnavailable as error:
            _log.info("%s are swept later: %s", what, error)
        except Exception as error:  # noqa: BLE001 - housekeeping must not end the jobs
            errors.log(error, f"{what} are swept later")
