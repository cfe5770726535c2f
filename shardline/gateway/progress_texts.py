"""The data of progress events, made once for all streams of events."""

from collections.abc import Callable

import orjson

from shardline.gateway.responses import public_json
from shardline.services.job_rates import JobRates
from shardline.services.job_view import JobView

_MAX_JOBS = 10_000


class ProgressTexts:
    """Makes the data of progress events. `public` hides from a sentence what users must not see.

    Every open page is a stream of the events of all jobs. Without this, each stream would describe all jobs
    anew at each refresh, and a few pages would occupy the process.
    """

    def __init__(self, public: Callable[[str], str]) -> None:
        self._public = public
        self._made: dict[str, tuple[int, JobView, bytes]] = {}

    def made(self, view: JobView, refresh: int) -> bytes | None:
        """Return the data that were made of this job; None when it has changed since, or may have.

        `refresh` is the number of the read of the topics that `view` is from.
        """
        known_at, known, data = self._made.get(view.state.spec.job_id, (-1, view, b""))
        # The texts and rates of an active job change with the time.
        same = known.state is view.state and known.progress == view.progress and not view.state.active
        return data if data and (known_at == refresh or same) else None

    def make(self, view: JobView, rates: JobRates, refresh: int) -> bytes:
        """Make the data of a job, and keep them."""
        body = public_json(view, self._public)
        del body["spec"]
        data = orjson.dumps(body | {"documents_per_second": rates.documents, "seconds_left": rates.left})
        self._made.pop(view.state.spec.job_id, None)
        while len(self._made) >= _MAX_JOBS:
            del self._made[next(iter(self._made))]
        self._made[view.state.spec.job_id] = (refresh, view, data)
        return data
