"""Opening the curator of a job: its filters are loaded, and compared with those of its plan."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shardline_common.job.filter_loading import FetchFile, load_filters
from shardline_common.job.filters import has_filters
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec
from shardline_consumer.curation.curator import Curator, NamedRule


def is_curated(spec: JobSpec) -> bool:
    """Whether the documents of a job are judged by a curator."""
    return has_filters(spec.quality)


@asynccontextmanager
async def open_curator(
    spec: JobSpec, plan: Plan, fetch: FetchFile | None = None, folder: Path | None = None
) -> AsyncIterator[Curator | None]:
    """The curator of a job; None for a job that has none.

    Args:
        spec: the job.
        plan: its plan.
        fetch: copies the files that its filters name; None: this process reads none.
        folder: where the copies are kept until the curator is closed; None: in that of temporary files.

    Raises: as `load_filters`.
    """
    if not is_curated(spec):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="filters-", dir=folder) as name:
        loaded = await load_filters(spec, fetch, Path(name), plan.filters)
        rules = [
            NamedRule(reason, rule)
            for one in loaded
            for reason, rule in zip(one.frozen.reasons, one.rules, strict=True)
        ]
        yield Curator(spec.quality.min_score, rules)
