"""The list of dashboards, and the folder of their JSON."""

from pathlib import Path

from deploy.dashboards.fleet import FLEET
from deploy.dashboards.gateway import GATEWAY
from deploy.dashboards.grafana import render
from deploy.dashboards.job import JOB

DASHBOARDS = (FLEET, JOB, GATEWAY)
FOLDER = Path(__file__).parent.parent / "grafana"


def dashboards() -> dict[str, str]:
    """The JSON of every dashboard, by file name."""
    return {f"{spec.uid}.json": render(spec) for spec in DASHBOARDS}
