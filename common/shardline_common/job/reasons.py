"""The closed list of reasons for which a job rejects documents."""

from collections.abc import Iterable

from shardline_common.job.plan import Plan

OWN_REASONS = ("empty", "below_min_score")
"""The reasons of every job. Those of its filters are frozen in its plan."""


def unknown_reasons(found: Iterable[str], plan: Plan, decided: Iterable[str] = ()) -> list[str]:
    """Those of the reasons that the job has not. `decided` are those of the decision of an assembled job."""
    closed = {*OWN_REASONS, *decided, *(reason for one in plan.filters for reason in one.reasons)}
    return sorted(set(found) - closed)
