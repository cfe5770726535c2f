"""All dashboards, and where their JSON stands."""

from pathlib import Path

from deploy.dashboards.fleet import FLEET
from deploy.dashboards.gateway import GATEWAY
from deploy.dashboards.grafana import render
from deploy.dashboards.job import JOB

BOARDS = (FLEET, JOB, GATEWAY)
FOLDER = Path(__file__).parent.parent / "grafana"


def dashboards() -> dict[str, str]:
    """File name → text of every dashboard."""
    return {f"{board.uid}.json": render(board) for board in BOARDS}
