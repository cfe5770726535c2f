"""The dashboards of Grafana as code: `python -m deploy.dashboards` writes them to deploy/grafana/."""
