"""Dashboards and panels, independent of Grafana's format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

RATE = "$__rate_interval"
DOCUMENTS = "suffix: documents/s"
COUNT, SECONDS, BYTES, BYTES_PER_SECOND, SHARE = "short", "s", "bytes", "binBps", "percentunit"


class PanelKind(Enum):
    """How a panel shows its values."""

    LINES = "lines"
    FIGURES = "figures"
    BARS = "bars"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class PanelSpec:
    """One panel: legend → query, in one unit.

    `warn` and `bad`: the values from which on it is yellow, and red. `alert` names the alert on the same
    value, and so its runbook. `floor` and `ceiling` are the ends of the axis. With `by_job` each line links
    to the dashboard of its job.
    """

    title: str
    meaning: str
    queries: Mapping[str, str]
    unit: str = COUNT
    kind: PanelKind = PanelKind.LINES
    width: int = 8
    warn: float | None = None
    bad: float | None = None
    alert: str | None = None
    floor: float | None = 0
    ceiling: float | None = None
    by_job: bool = False


@dataclass(frozen=True, slots=True)
class DashboardSpec:
    """One dashboard: rows of panels. With `job` it has a list of jobs to choose from."""

    uid: str
    title: str
    meaning: str
    rows: Sequence[tuple[str, Sequence[PanelSpec]]]
    job: bool = False


def quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram over the interval that Grafana chooses."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{where}[{RATE}])))"


def rate(metric: str, by: str = "", where: str = "") -> str:
    """The rate of a counter per second, summed."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{where}[{RATE}]))"
