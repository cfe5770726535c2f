"""Opening the curator of a job: its filters are loaded, and compared with those of its plan."""

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shardline_common.job.filter_loading import FetchFile, LoadedFilter, load_filters
from shardline_common.job.filters import PII, is_curated
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec

if TYPE_CHECKING:
    from shardline_consumer.curation.curator import Curator
    from shardline_consumer.curation.personal_data import Redactor


@asynccontextmanager
async def open_curator(
    spec: JobSpec, plan: Plan, fetch: FetchFile | None = None, folder: Path | None = None
) -> "AsyncIterator[Curator | None]":
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
    from shardline_consumer.curation.curator import Curator, NamedRule

    with tempfile.TemporaryDirectory(prefix="filters-", dir=folder) as name:
        loaded = await load_filters(spec, fetch, Path(name), plan.filters)
        rules = [
            NamedRule(reason, rule)
            for one in loaded
            for reason, rule in zip(one.frozen.reasons, one.rules, strict=True)
        ]
        yield Curator(spec.quality.min_score, rules, *_personal_data(spec, loaded), _repair(spec))


def _repair(spec: JobSpec) -> Callable[[str], str] | None:
    if spec.quality.repair is None:
        return None
    from shardline_consumer.filters.repair import repairer

    return repairer()


def _personal_data(
    spec: JobSpec, loaded: Sequence[LoadedFilter]
) -> "tuple[Redactor | None, Redactor | None]":
    """What redacts documents, and what counts in rows; None: the job does not ask for it."""
    if spec.pii is None or spec.pii.action == "reject":
        return None, None
    from shardline_consumer.curation.personal_data import Redactor
    from shardline_consumer.filters.pii import PersonalData, kinds_of

    parameters = next(one.frozen.parameters for one in loaded if one.frozen.name == PII)
    redactor = Redactor(kinds_of(PersonalData.model_validate(parameters)))
    return (redactor, None) if spec.redacts else (None, redactor)
