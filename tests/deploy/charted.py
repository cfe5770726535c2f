"""Renders the Helm chart, and validates it by the schemas of Kubernetes and of the custom resources."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.dev.helm import find_helm
from deploy.dev.service import ROOT, ServiceError, cached, run_command

CHART = ROOT / "deploy" / "helm" / "shardline"
_CRDS = Path(__file__).parent / "crds"
# The oldest that Chart.yaml admits and the newest whose schema is there; a release is checked against both.
VERSIONS = ("1.27", "1.37")
_CUSTOM = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1")


def helm(*arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm on the chart; `values` come before the chart's own."""
    try:
        command = [find_helm(), *arguments, "--values", "-"]
    except ServiceError as error:
        pytest.fail(str(error), pytrace=False)
    return subprocess.run(
        command, input=json.dumps(values or {}), capture_output=True, text=True, check=False
    )


def rendered(values: dict[str, Any] | None = None, version: str = VERSIONS[-1]) -> list[dict[str, Any]]:
    """The objects of a release `r` in the namespace `data`."""
    return [one for one in yaml.safe_load_all(_template(json.dumps(values or {}), version)) if one]


@cache
def _template(values: str, version: str) -> str:
    place = ("--namespace", "data", "--kube-version", f"{version}.0")
    done = helm("template", "r", str(CHART), *place, values=json.loads(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Those of a kind by name, without the release's own."""
    return {one["metadata"]["name"].removeprefix("r-"): one for one in objects if one["kind"] == kind}


def validate(resource: dict[str, Any], version: str) -> None:
    """Fail where an object has a field that its schema does not know, or lacks one that it wants."""
    if resource["apiVersion"] not in _CUSTOM:
        kubernetes_validate.validate(resource, version, strict=True)
        return
    node = shutil.which("node")
    assert node is not None, "node is not there; on Debian: apt-get install nodejs npm"
    command = [node, str(_CRDS / "validate.mjs"), str(_packages())]
    done = subprocess.run(command, input=json.dumps(resource), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@cache
def _packages() -> Path:
    def fill(folder: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_CRDS / name, folder)
        npm = shutil.which("npm")
        assert npm is not None, "npm is not there; on Debian: apt-get install nodejs npm"
        run_command([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", f"--prefix={folder}"])

    return cached("crds", (_CRDS / "package-lock.json").read_bytes(), fill)
