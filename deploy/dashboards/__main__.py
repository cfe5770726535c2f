"""Writes the dashboards."""

import sys

from deploy.dashboards.boards import FOLDER, dashboards

for name, text in dashboards().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
    sys.stdout.write(f"deploy/grafana/{name}\n")
