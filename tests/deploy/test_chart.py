"""The Helm chart: valid with every kind of values, and secure by default."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from deploy.dev.service import ROOT
from shardline_common import __version__
from shardline_common.settings.load import Settings, load_settings
from tests.deploy.charted import CHART, VERSIONS, helm, of_kind, rendered, validate
from tests.deploy.composed import composed

PAGE = ROOT / "docs" / "deployment.md"
KINDS = ("producer", "worker", "gateway")
FULL: dict[str, Any] = {
    "image": {"pullSecrets": [{"name": "registry"}], "digest": "sha256:" + "0" * 64},
    "settings": {"AWS_ENDPOINT_URL_S3": "https://s3.example", "KAFKA_SSL_CAFILE": "/certificates/ca.pem"},
    "secrets": {"AWS_SECRET_ACCESS_KEY": {"secret": "s3", "key": "secret-key"}},
    "sourceSettings": {"POSTGRES_HOST": "postgres.uds3", "POSTGRES_PORT": 5433},
    "sourceSecrets": {"POSTGRES_PASSWORD": {"secret": "uds3", "key": "password"}},
    "gatewaySecrets": {"GATEWAY_LINK_KEY": {"secret": "gateway", "key": "link"}},
    "certificates": {"configMap": "authorities"},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/shardline"}},
    "producer": {
        "files": {"claim": "documents"},
        "nodeSelector": {"pool": "data"},
        "tolerations": [{"key": "data", "operator": "Exists"}],
    },
    "worker": {"autoscaling": {"prometheus": {"authentication": "prometheus"}}},
    "gateway": {"ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"}},
    "networkPolicy": {
        "sourceEgress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 5432}]}],
        "gatewayEgress": [{"ports": [{"port": 443}]}],
        "gatewayFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {
        "enabled": True,
        "groups": [{"name": "own", "rules": [{"alert": "Down", "expr": "up == 0", "for": "5m"}]}],
    },
    "exports": [
        {
            "name": "laws-daily",
            "schedule": "15 2 * * *",
            "timeZone": "Europe/Berlin",
            "args": ["submit", "/exports/laws.json"],
            "files": {"laws.json": '{"name": "laws"}'},
        },
        {"name": "jobs", "schedule": "@every 1h", "args": ["jobs"]},
    ],
}
BARE: dict[str, Any] = {
    "serviceAccount": {"create": False},
    "worker": {"autoscaling": {"enabled": False}},
    "gateway": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", [{}, FULL, BARE], ids=["default", "full", "bare"])
def test_every_object_matches_its_schema(values: dict[str, Any], version: str) -> None:
    for resource in rendered(values, version):
        validate(resource, version)


@pytest.mark.parametrize("values", [{}, FULL, BARE], ids=["default", "full", "bare"])
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    done = helm("lint", str(CHART), "--strict", "--kube-version", "1.37.0", values=values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"settings": {"POSTGRES_PASSWORD": "in the open"}}, "POSTGRES_PASSWORD"),
        ({"sourceSettings": {"THEMIS_TOKEN": "in the open"}}, "THEMIS_TOKEN"),
        ({"gateway": {"settings": {"GATEWAY_LINK_KEY": "in the open"}}}, "GATEWAY_LINK_KEY"),
        ({"secrets": {"AWS_SECRET_ACCESS_KEY": "in the open"}}, "AWS_SECRET_ACCESS_KEY"),
        ({"producer": {"replicas": 0}}, "producer"),
        ({"workers": {}}, "workers"),
        ({"shutdownMargin": 0}, "shutdownMargin"),
    ],
)
def test_harmful_values_are_refused(values: dict[str, Any], complaint: str) -> None:
    done = helm("template", "r", str(CHART), "--kube-version", "1.37.0", values=values)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_settings_are_all_but_the_secrets() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]
    accepts = Draft7Validator(schema).is_valid
    secrets = 0
    for info in Settings.model_fields.values():
        extra: Any = info.json_schema_extra
        secret = "SecretStr" in str(info.annotation)
        secrets += secret
        for name in (*extra["names"], *extra["old"]):
            assert accepts({name: "x"}) is not secret, name
    assert secrets > 8


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods of the release, by component."""
    found = {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"][
            "spec"
        ]
        for one in of_kind(objects, "Deployment").values()
    }
    for job in of_kind(objects, "CronJob").values():
        found[job["metadata"]["name"]] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def test_pods_have_minimal_privileges() -> None:
    found = pods(rendered(FULL))
    assert len(found) == len(KINDS) + 2
    for pod in found.values():
        assert pod["automountServiceAccountToken"] is False
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)


def test_secrets_are_files_only_where_needed() -> None:
    found = pods(rendered(FULL))
    everywhere, sources, gateway = "AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD", "GATEWAY_LINK_KEY"
    wanted = {
        "producer": {everywhere, sources},
        "worker": {everywhere},
        "gateway": {everywhere, sources, gateway},
    }
    wanted |= {"r-shardline-laws-daily": {everywhere}, "r-shardline-jobs": {everywhere}}
    for kind, pod in found.items():
        env = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        named = {
            name.removesuffix("_FILE"): path
            for name, path in env.items()
            if name.endswith("_FILE") and "/secrets/" in path
        }
        (volume,) = (one for one in pod["volumes"] if one["name"] == "secrets")
        paths = {item["path"] for part in volume["projected"]["sources"] for item in part["secret"]["items"]}
        assert set(named) == paths == wanted[kind]
        assert named == {name: f"/secrets/{name}" for name in paths}


def test_every_variable_is_a_setting(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    for kind, pod in pods(rendered(FULL)).items():
        env = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        env = {name: str(secret) if value.startswith("/secrets/") else value for name, value in env.items()}
        loaded = load_settings(environ=env, folder=tmp_path)
        assert sum(origin.startswith("environment") for origin in loaded.origins.values()) == len(env), kind


def test_the_grace_period_exceeds_the_shutdown_time() -> None:
    for values in ({}, {"shutdownGrace": 120, "shutdownMargin": 10}):
        found = pods(rendered(values))
        for kind in KINDS:
            env = {one["name"]: one["value"] for one in found[kind]["containers"][0]["env"]}
            assert found[kind]["terminationGracePeriodSeconds"] > float(
                env["SHARDLINE_SHUTDOWN_GRACE_SECONDS"]
            )


def test_the_spool_volume_exceeds_the_spool_limit() -> None:
    pod = pods(rendered())["worker"]
    (spool,) = (one["emptyDir"] for one in pod["volumes"] if one["name"] == "spool")
    env = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    assert spool["sizeLimit"] == "9Gi"
    assert int(env["SHARDLINE_SPOOL_BYTES"]) < 9 << 30


def test_probes_use_the_health_endpoints() -> None:
    for pod in (pods(rendered())[kind] for kind in KINDS):
        (container,) = pod["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
        assert [probe["path"] for probe in asked.values()] == ["/healthz", "/healthz", "/readyz"]
        assert {probe["port"] for probe in asked.values()} == {"metrics"}
        env = {one["name"]: one["value"] for one in container["env"]}
        assert ports["metrics"] == int(env["SHARDLINE_METRICS_PORT"]) == 9400


def test_workers_are_scaled_from_zero_by_the_lag() -> None:
    objects = rendered()
    (scaled,) = of_kind(objects, "ScaledObject").values()
    worker = of_kind(objects, "Deployment")["shardline-worker"]
    assert "replicas" not in worker["spec"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    assert scaled["spec"]["minReplicaCount"] == 0
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert 'shardline_lag_documents{namespace="data"}' in query
    metrics = (ROOT / "docs" / "metrics.md").read_text()
    assert "`shardline_lag_documents`" in metrics
    assert "`shardline_jobs`" in metrics
    assert of_kind(rendered(BARE), "Deployment")["shardline-worker"]["spec"]["replicas"] == 2


def test_the_scaling_query_is_positive_while_a_job_runs(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None, "promtool is not there; on Debian: apt-get install prometheus"
    (scaled,) = of_kind(rendered(), "ScaledObject").values()
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    cases = [
        ({}, 0),
        ({'jobs{namespace="data",state="running"}': 0, 'jobs{namespace="data",state="failed"}': 3}, 0),
        # Its source is empty, or all of it is committed and the job is not completed.
        ({'jobs{namespace="data",state="running"}': 1}, 1),
        (
            {
                'jobs{namespace="data",state="completing"}': 1,
                'lag_documents{namespace="data",dataset_job="a"}': 0,
            },
            1,
        ),
        ({f'lag_documents{{namespace="data",dataset_job="{name}"}}': 6000 for name in "ab"}, 12_000),
        ({'lag_documents{namespace="other",dataset_job="a"}': 6000}, 0),
    ]
    tests = [
        {
            "input_series": [
                {"series": f"shardline_{name}", "values": str(value)} for name, value in given.items()
            ],
            "promql_expr_test": [
                {"expr": query, "eval_time": "0m", "exp_samples": [{"labels": "{}", "value": wanted}]}
            ],
        }
        for given, wanted in cases
    ]
    (tmp_path / "query.test.yml").write_text(yaml.safe_dump({"tests": tests}))
    done = subprocess.run(
        [promtool, "test", "rules", "query.test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_network_policies_deny_by_default() -> None:
    policies = of_kind(rendered(), "NetworkPolicy")
    everyone = policies["shardline"]["spec"]
    assert everyone["policyTypes"] == ["Ingress", "Egress"]
    ports = [{port["port"] for port in rule["ports"]} for rule in everyone["egress"]]
    assert ports == [{53}, {9092}, {8333}]
    assert all(rule["to"] for rule in everyone["egress"])
    assert set(policies) == {"shardline", "shardline-gateway"}
    sources = of_kind(rendered(FULL), "NetworkPolicy")["shardline-sources"]["spec"]
    assert sources["podSelector"]["matchExpressions"][0]["values"] == ["producer", "gateway"]
    silent = of_kind(rendered({"networkPolicy": {"metricsFrom": []}}), "NetworkPolicy")["shardline"]
    assert silent["spec"]["ingress"] == []


def test_selectors_match_the_pods() -> None:
    objects = rendered(FULL)
    labels = [
        one["spec"]["template"]["metadata"]["labels"] for one in of_kind(objects, "Deployment").values()
    ]
    budgets = [
        one["spec"]["selector"]["matchLabels"] for one in of_kind(objects, "PodDisruptionBudget").values()
    ]
    services = [one["spec"]["selector"] for one in of_kind(objects, "Service").values()]
    assert len(budgets) == len(KINDS)
    found = [sum(wanted.items() <= one.items() for one in labels) for wanted in budgets + services]
    assert found == [1, 1, 1, 1, len(KINDS)]


def test_a_recurring_export_runs_its_command_on_its_files() -> None:
    objects = rendered(FULL)
    job = of_kind(objects, "CronJob")["shardline-laws-daily"]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["submit", "/exports/laws.json"]
    (mounted,) = (one["configMap"]["name"] for one in pod["volumes"] if one["name"] == "exports")
    files = of_kind(objects, "ConfigMap")[mounted.removeprefix("r-")]["data"]
    assert files == {"laws.json": '{"name": "laws"}'}


def test_the_documented_command_renders_the_prometheus_rules() -> None:
    text = PAGE.read_text()
    pattern = r"^(\{ echo 'prometheusRule:'.*?) > rules\.values\.yaml$"
    (command,) = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    made = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, check=True).stdout
    values = yaml.safe_load(made)
    (rule,) = of_kind(rendered(values), "PrometheusRule").values()
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    validate(rule, VERSIONS[-1])


def test_documented_values_render() -> None:
    least, exports = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for resource in rendered(yaml.safe_load(least) | yaml.safe_load(exports)):
        validate(resource, VERSIONS[-1])


def test_the_service_monitor_selects_every_pod() -> None:
    objects = rendered(FULL)
    (monitor,) = of_kind(objects, "ServiceMonitor").values()
    wanted = monitor["spec"]["selector"]["matchLabels"]
    found = [
        one
        for one in of_kind(objects, "Service").values()
        if wanted.items() <= one["metadata"]["labels"].items()
    ]
    (service,) = found
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "shardline"
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_the_chart_version_equals_the_program_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__


def test_chart_and_compose_agree_on_the_ports() -> None:
    compose = composed()["services"]["gateway"]
    container = pods(rendered())["gateway"]["containers"][0]
    assert {"name": "http", "containerPort": 45681} in container["ports"]
    assert any(str(port).split(":")[-1].startswith("45681") for port in compose["ports"])
