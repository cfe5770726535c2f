"""The filters of a job with their parameters: those of its preset, then those that it names."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from shardline_common.curation.presets import PRESETS
from shardline_common.curation.registry import FilterUnknown, FilterUnusable, load_filter
from shardline_common.job.field_faults import Fault, did_you_mean, find_faults, list_names

if TYPE_CHECKING:
    from shardline_common.curation.filter import AnyFilterKind
    from shardline_common.job.spec import JobSpec
    from shardline_common.job.spec_fields import Quality

PII, REPAIR = "pii", "repair"
_ELSEWHERE = {
    PII: "personal data is the field `pii` of the job",
    REPAIR: "the repair of texts is the field `quality.repair` of the job",
}


@dataclass(frozen=True, slots=True)
class JobFilter:
    """A filter of a job, with all its parameters."""

    kind: "AnyFilterKind"
    parameters: BaseModel

    @property
    def given(self) -> dict[str, Any]:
        """All parameters, as JSON."""
        return self.parameters.model_dump(mode="json")


def filter_addresses(spec: "JobSpec") -> list[str]:
    """The addresses of the files that the filters of a job name. Raises as `job_filters`."""
    if not has_filters(spec.quality):
        return []
    named = ((one.kind.files, one.parameters) for one in job_filters(spec))
    return [address for files, given in named if files is not None for address in files(given).values()]


class FiltersInvalid(ValueError):
    """Filters of a job cannot be used as it names them: `faults` says each one."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


def has_filters(quality: "Quality") -> bool:
    """Whether a job names filters besides Clara's score."""
    return bool(quality.filters) or bool(PRESETS[quality.preset])


def is_curated(spec: "JobSpec") -> bool:
    """Whether the text of each document is looked at, and not its facts alone."""
    return has_filters(spec.quality) or spec.pii is not None or spec.quality.repair is not None


def job_filters(spec: "JobSpec") -> list[JobFilter]:
    """The filters of a job, in the order in which they judge: those of `quality.repair` and `pii` are first.

    Raises:
        FiltersInvalid: a filter is not installed or cannot be loaded, or has no such parameters.
    """
    found, faults = _checked(spec.quality)
    first: list[tuple[str, tuple[str, ...], dict[str, Any]]] = []
    if spec.quality.repair is not None:
        first.append((REPAIR, ("quality", "repair"), {"by": spec.quality.repair}))
    if spec.pii is not None:
        first.append((PII, ("pii",), spec.pii.model_dump()))
    for place, (name, path, given) in enumerate(first):
        try:
            kind = load_filter(name)
        except (FilterUnknown, FilterUnusable) as error:
            faults.append(Fault(path, "unusable", str(error)))
        else:
            found.insert(place, JobFilter(kind, kind.parameters.model_validate(given)))
    if faults:
        raise FiltersInvalid(faults)
    return found


def _checked(quality: "Quality") -> tuple[list[JobFilter], list[Fault]]:
    asked: dict[str, tuple[dict[str, Any], tuple[int | str, ...]]] = {
        name: (dict(parameters), ("quality", "preset"))
        for name, parameters in PRESETS[quality.preset].items()
    }
    found: list[JobFilter] = []
    faults: list[Fault] = []
    named = set[str]()
    for number, use in enumerate(quality.filters):
        path: tuple[int | str, ...] = ("quality", "filters", number)
        if use.name in _ELSEWHERE:
            faults.append(Fault((*path, "name"), "elsewhere", _ELSEWHERE[use.name]))
            continue
        if use.name in named:
            faults.append(Fault((*path, "name"), "twice", f"the filter {use.name} is named twice"))
            continue
        named.add(use.name)
        preset = asked.get(use.name, ({}, ()))[0]
        asked[use.name] = (preset | use.parameters, path)
    for name, (parameters, where) in asked.items():
        try:
            kind = load_filter(name)
            checked = kind.parameters.model_validate(parameters, strict=True)
        except FilterUnknown as error:
            names = f"no such filter is installed; there are {list_names(error.names)}"
            faults.append(
                Fault(
                    (*where, "name"), "unknown", names, f"the text {name!r}", did_you_mean(name, error.names)
                )
            )
        except FilterUnusable as error:
            faults.append(Fault((*where, "name"), "unusable", str(error)))
        except ValidationError as error:
            faults += _placed(find_faults(error, kind.parameters, parameters), where)
        else:
            found.append(JobFilter(kind, checked))
    return found, faults


def _placed(faults: list[Fault], path: tuple[int | str, ...]) -> list[Fault]:
    return [Fault((*path, *one.path), one.kind, one.sentence, one.got, one.near) for one in faults]


def check_filters(quality: "Quality") -> list[Fault]:
    """What is wrong with the filters of a job. A job without filters loads none."""
    return _checked(quality)[1] if has_filters(quality) else []
