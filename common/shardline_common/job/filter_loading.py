"""Loading the filters of a job, with their files: when it is planned, and where its documents are judged."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.filters import FiltersInvalid, JobFilter, is_curated, job_filters
from shardline_common.job.plan import FrozenFilter
from shardline_common.job.spec import JobSpec
from shardline_common.runtime.file_hash import file_sha256
from shardline_common.runtime.threads import run_in_thread

if TYPE_CHECKING:
    from shardline_common.curation.filter import Rule

FetchFile = Callable[[str, Path], Awaitable[None]]
"""Copies the file at an address to a path.

Raises JobFailed for one that is not there or may not be read, and SourceUnavailable: try again later.
"""


class FiltersDiffer(Exception):
    """The filters that are installed here are not those with which the job was planned.

    No error of the job: another worker may have them. `hint` is one thing to do here.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class LoadedFilter:
    """A filter that can judge: as it is frozen, and its rules in the order in which they are asked."""

    frozen: FrozenFilter
    rules: "Sequence[Rule]"


async def load_filters(
    spec: JobSpec, fetch: FetchFile | None, folder: Path, planned: Sequence[FrozenFilter] | None = None
) -> list[LoadedFilter]:
    """Load the filters of a job, in the order in which they judge.

    Args:
        spec: the job.
        fetch: copies the files that filters name; None: this process reads none.
        folder: where the copies go. It stays as long as the filters are used.
        planned: the filters of the plan, which these must be; None: the job is being planned.

    Raises:
        FiltersDiffer: they are not those of the plan, or one is not installed.
        JobFailed: a filter cannot be used (`source_invalid`), or a file has changed since the job was planned
            (`source_changed`).
        SourceUnavailable: a file cannot be read now.
    """
    if not is_curated(spec):
        return []
    try:
        filters = job_filters(spec)
        identities = [_identity(one) for one in filters]
    except PackageNotFoundError as error:
        message = f"a filter of the job needs the package {error.name}, which is not installed here"
        hint = "install it, or the extra of Shardline that has it, on producers and workers"
        if planned is not None:
            raise FiltersDiffer(message, hint=hint) from None
        raise JobFailed(FailureCode.EXTRA_MISSING, message, hint=hint) from None
    except FiltersInvalid as error:
        if planned is not None:
            raise FiltersDiffer(str(error), hint="install what the filter needs here") from None
        raise JobFailed(FailureCode.SOURCE_INVALID, str(error)) from None
    if planned is not None:
        _check_identities(planned, identities)
    loaded = []
    for number, (one, identity) in enumerate(zip(filters, identities, strict=True)):
        known = planned[number] if planned is not None else None
        paths = await _fetched(one, fetch, folder / f"filter-{number}")
        hashes = {name: await run_in_thread(partial(file_sha256, path)) for name, path in paths.items()}
        if known is not None and hashes != known.files:
            raise JobFailed(
                FailureCode.SOURCE_CHANGED,
                f"a file of the filter {one.kind.name} is not the one with which the job was planned: "
                f"{', '.join(sorted(name for name in hashes if hashes[name] != known.files.get(name)))}",
                hint="restore the file, then retry the job; or submit a new job",
            )
        rules = await run_in_thread(partial(_rules, one, paths))
        reasons = [f"{one.kind.name}.{rule.name}" for rule in rules]
        loaded.append(LoadedFilter(replace(identity, files=hashes, reasons=reasons), rules))
    return loaded


def _identity(one: JobFilter) -> FrozenFilter:
    """The filter as it is frozen, without what is known only from its files."""
    libraries = {name: version(name) for name in one.kind.libraries}
    return FrozenFilter(one.kind.name, one.kind.version, one.given, [], libraries)


def _check_identities(planned: Sequence[FrozenFilter], own: Sequence[FrozenFilter]) -> None:
    differences = list(_differences(planned, own))
    if differences:
        raise FiltersDiffer(
            f"the job was planned with other filters than are installed here: {'; '.join(differences)}",
            hint="install the version of Shardline, or of the package, that planned it; or submit a new job",
        )


def _differences(planned: Sequence[FrozenFilter], own: Sequence[FrozenFilter]) -> list[str]:
    names = [[one.name for one in filters] for filters in (planned, own)]
    if names[0] != names[1]:
        return [f"it has {', '.join(names[0]) or 'none'}, here there are {', '.join(names[1]) or 'none'}"]
    found = []
    for one, other in zip(planned, own, strict=True):
        if one.version != other.version:
            found.append(f"version {one.version} of {one.name}, here it is {other.version}")
        if one.libraries != other.libraries:
            found.append(f"{one.name} with {_listed(one.libraries)}, here with {_listed(other.libraries)}")
        if one.parameters != other.parameters:
            different = [
                name
                for name in sorted({*one.parameters, *other.parameters})
                if one.parameters.get(name) != other.parameters.get(name)
            ]
            found.append(f"other values of {one.name}: {', '.join(different)}")
    return found


def _listed(libraries: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(libraries.items())) or "no library"


async def _fetched(one: JobFilter, fetch: FetchFile | None, folder: Path) -> dict[str, Path]:
    """The copies of the files that a filter names, by their names."""
    addresses = one.kind.files(one.parameters) if one.kind.files is not None else {}
    if not addresses:
        return {}
    if fetch is None:
        raise JobFailed(
            FailureCode.SOURCE_INVALID, f"this process cannot read the files of the filter {one.kind.name}"
        )
    await run_in_thread(partial(folder.mkdir, parents=True, exist_ok=True))
    paths = {}
    for number, (name, address) in enumerate(addresses.items()):
        paths[name] = folder / f"{number}{''.join(Path(address).suffixes)}"
        await fetch(address, paths[name])
    return paths


def _rules(one: JobFilter, paths: dict[str, Path]) -> "Sequence[Rule]":
    try:
        rules = list(one.kind.rules(one.parameters, paths))
    except JobFailed:
        raise
    except Exception as error:
        # Whatever the filter of another package raises, for example about the contents of its file.
        raise JobFailed(
            FailureCode.SOURCE_INVALID, f"the filter {one.kind.name} refuses its parameters or files: {error}"
        ) from error
    names: list[Any] = [rule.name for rule in rules]
    if len(set(names)) != len(names):
        raise JobFailed(
            FailureCode.SOURCE_INVALID, f"the filter {one.kind.name} has two rules of one name: {names}"
        )
    return rules
