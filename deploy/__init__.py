"""Deployment: images, dashboards, releases, sample data, and the services of development."""
