"""docker-compose.yml: its content, and a run of the whole system with its settings, without Docker."""

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from aiohttp.test_utils import TestServer

from deploy.dev.service import ROOT
from deploy.seed.embedding import application
from deploy.seed.load import seed
from shardline.services.sample import sample_document
from shardline_common.settings.load import Settings, load_settings
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from tests.databases import POSTGRES_IMAGE, Database
from tests.deploy.composed import FILE, PROFILES, carried_over, composed
from tests.e2e.system import Process
from tests.gateway.realm import Realm, running_realm
from tests.gateway.system import Server, body, ended
from tests.services import KAFKA_IMAGE, S3, SEAWEED_IMAGE
from tests.stores import CHROMA_IMAGE, COUCH_IMAGE, NEO4J_IMAGE, Address

PAGE = ROOT / "docs" / "deployment.md"
OWN = ("producer", "worker", "gateway")
LOADED = 300


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return composed()


def test_up_starts_the_whole_system(file: dict[str, Any]) -> None:
    stores = {"kafka", "s3", "postgres", "chroma", "neo4j", "couchdb", "embedding", "seed"}
    assert set(file["services"]) == stores | {*OWN, "prometheus", "grafana", "keycloak"}
    assert not any(service.get("profiles") for service in file["services"].values())
    assert file["services"]["worker"]["deploy"]["replicas"] == 2


def test_every_service_has_a_profile() -> None:
    services = composed(FILE, PROFILES)["services"]
    assert all(service["profiles"] for service in services.values())
    for name, service in services.items():
        for needed in service.get("depends_on", {}):
            assert set(service["profiles"]) <= set(services[needed]["profiles"]), (name, needed)
    assert services["gateway"]["environment"]["CLARA_SECURITY_MODE"] == "debug"


def test_ports_are_bound_to_localhost(file: dict[str, Any]) -> None:
    ports = [port for service in file["services"].values() for port in service.get("ports", [])]
    assert len(ports) > 8
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned_to_the_tested_versions(file: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in file["services"].items()}
    own = {name for name, image in images.items() if image == "shardline:dev"}
    assert own == {*OWN, "embedding", "seed"}
    assert all(re.search(r":v?\d+\.\d+(\.\d+)?$", images[name]) for name in images.keys() - own)
    tested = {KAFKA_IMAGE, SEAWEED_IMAGE, POSTGRES_IMAGE, CHROMA_IMAGE, NEO4J_IMAGE, COUCH_IMAGE}
    assert tested <= set(images.values())


def test_every_service_has_a_health_check(file: dict[str, Any]) -> None:
    # Those of our own image have the check of the image; the seed ends.
    unchecked = {name for name, service in file["services"].items() if "healthcheck" not in service}
    assert unchecked == set(OWN)
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()


def test_own_containers_have_minimal_privileges(file: dict[str, Any]) -> None:
    for name in (*OWN, "embedding", "seed"):
        service = file["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    grace = Settings.model_fields["shutdown_grace_seconds"].default
    assert all(file["services"][name]["stop_grace_period"] == "40s" for name in OWN)
    assert grace < 40


def test_every_setting_is_known(file: dict[str, Any], tmp_path: Path) -> None:
    known = (ROOT / "docs" / "settings.md").read_text()
    for name in OWN:
        env = {key: str(value) for key, value in file["services"][name]["environment"].items()}
        assert not [key for key in env if f"`{key}`" not in known]
        loaded = load_settings(environ=env, folder=tmp_path)
        assert not loaded.warnings
        assert sum(origin.startswith("environment") for origin in loaded.origins.values()) == len(env)


def test_a_worker_has_no_secret_of_a_source(file: dict[str, Any]) -> None:
    env = file["services"]["worker"]["environment"]
    assert {name for name in env if "PASSWORD" in name or "SECRET" in name} == {"AWS_SECRET_ACCESS_KEY"}


def test_servers_and_clients_agree_on_changed_passwords() -> None:
    changed = {
        name: f"changed-{name}"
        for name in (
            "POSTGRES_PASSWORD",
            "NEO4J_PASSWORD",
            "COUCH_PASSWORD",
            "S3_ACCESS_KEY",
            "S3_SECRET_KEY",
        )
    }
    env = {
        name: service.get("environment") for name, service in composed(environ=changed)["services"].items()
    }
    gateway = env["gateway"]
    assert (
        env["postgres"]["POSTGRES_PASSWORD"] == gateway["POSTGRES_PASSWORD"] == changed["POSTGRES_PASSWORD"]
    )
    assert (
        env["neo4j"]["NEO4J_AUTH"] == f"neo4j/{gateway['NEO4J_PASSWORD']}" == "neo4j/changed-NEO4J_PASSWORD"
    )
    assert env["couchdb"]["COUCHDB_PASSWORD"] == gateway["COUCH_PASSWORD"] == changed["COUCH_PASSWORD"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert env["s3"][name] == env["worker"][name] == gateway[name]
        assert env["s3"][name].startswith("changed-")


def test_the_gateway_accepts_tokens_of_the_realm(file: dict[str, Any]) -> None:
    realm = json.loads((ROOT / "deploy" / "keycloak" / "realm.json").read_text())
    env = file["services"]["gateway"]["environment"]
    assert realm["realm"] == env["KEYCLOAK_REALM"]
    assert {role["name"] for role in realm["roles"]["realm"]} == {"admin", "trainer", "analyst"}
    clients = {client["clientId"]: client for client in realm["clients"]}
    assert env["KEYCLOAK_CLIENT_ID"] in clients
    (mapper,) = clients["clara-cli"]["protocolMappers"]
    assert mapper["config"]["included.client.audience"] == env["KEYCLOAK_CLIENT_ID"]
    assert file["services"]["keycloak"]["environment"]["KC_HOSTNAME"] == env["KEYCLOAK_URL"]


def test_mounted_files_exist(file: dict[str, Any]) -> None:
    raw = yaml.safe_load(FILE.read_text())["services"]
    mounts = [mount.split(":")[0] for service in raw.values() for mount in service.get("volumes", [])]
    ours = [mount for mount in mounts if mount.startswith("./")]
    assert len(ours) > 4
    assert all((ROOT / mount).exists() for mount in ours)
    assert {mount for mount in mounts if not mount.startswith("./")} == set(file["volumes"])


def test_prometheus_scrapes_existing_services(file: dict[str, Any]) -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    found = {name: one["port"] for job in scraped for one in job["dns_sd_configs"] for name in one["names"]}
    assert found == {
        name: int(file["services"][name]["environment"]["SHARDLINE_METRICS_PORT"]) for name in OWN
    }


@contextmanager
def started(name: str, command: list[str], env: dict[str, str], folder: Path) -> Iterator[Process]:
    """A process with these variables and no others."""
    log = folder / f"{name}.log"
    bare = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [sys.executable, "-m", *command], env=bare | env, stdout=out, stderr=subprocess.STDOUT, cwd=folder
        )
    process = Process(name, popen, log)
    try:
        yield process
    finally:
        if popen.poll() is None:
            process.end(signal.SIGKILL)


@pytest.fixture
def stores(database: Database, chroma: Address, emptied: Neo4jOptions, couch: Address) -> dict[str, str]:
    """The settings of the four stores here."""
    return database.env | {
        "CHROMA_HOST": urlsplit(chroma.url).hostname or "",
        "CHROMA_PORT": str(chroma.port),
        "NEO4J_URI": emptied.uri,
        "NEO4J_USER": emptied.user or "",
        "NEO4J_PASSWORD": emptied.password or "",
        "COUCH_URL": couch.url,
        "COUCH_USER": couch.user,
        "COUCH_PASSWORD": couch.password,
    }


def local_settings(folder: Path, kafka: str, s3: S3, realm: Realm) -> dict[str, str]:
    """What stands here in place of the other containers, of their ports and of their volumes."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "AWS_ENDPOINT_URL_S3": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "S3_BUCKET": s3.bucket,
        "KEYCLOAK_URL": realm.url,
        "GATEWAY_HOST": "127.0.0.1",
        "SHARDLINE_METRICS_PORT": "0",
        "SHARDLINE_SPOOL_DIR": str(folder),
        "FILES_ROOT": str(folder),
    }


def apart(stores: dict[str, str]) -> dict[str, str]:
    """What keeps this test apart from others on the same servers, beside the ports that happen to be free."""
    own = f"t{secrets.token_hex(4)}"
    names = dict.fromkeys(("S3_PREFIX", "CHROMA_COLLECTION", "COUCH_DATABASE"), own)
    ports = {"CLARA_DATASET_PORT": "0", "CHROMA_PORT": stores["CHROMA_PORT"]}
    return names | ports | {"POSTGRES_PORT": stores["POSTGRES_PORT"], "KAFKA_TOPIC_PREFIX": f"{own}."}


@pytest.mark.timeout(600)
async def test_settings_of_compose_run_the_whole_system(
    tmp_path: Path, file: dict[str, Any], kafka: str, seaweed: S3, stores: dict[str, str]
) -> None:
    async with TestServer(application()) as embedding:
        with running_realm() as realm:
            local = stores | local_settings(tmp_path, kafka, seaweed, realm)
            local["EMBEDDING_URL"] = str(embedding.make_url("/embed"))
            more = apart(stores)
            env = {name: carried_over(file, name, local) | more for name in (*OWN, "seed")}
            await asyncio.to_thread(_whole_system, file, env, tmp_path, realm)


def _whole_system(file: dict[str, Any], env: dict[str, dict[str, str]], folder: Path, realm: Realm) -> None:
    services = file["services"]
    module = services["seed"]["entrypoint"][-1]
    assert b"300 documents" in _run([module], env["seed"] | {"SEED_DOCUMENTS": str(LOADED)}, folder)
    # The same again changes nothing: the search counts each document once.
    seed(load_settings(environ=env["seed"], folder=folder).settings, LOADED, folder / "again.jsonl")
    commands = {name: ["shardline", *services[name]["command"]] for name in OWN}
    with (
        started("producer", commands["producer"], env["producer"], folder) as producer,
        started("worker-1", commands["worker"], env["worker"], folder) as first,
        started("worker-2", commands["worker"], env["worker"], folder) as second,
        started("gateway", commands["gateway"], env["gateway"], folder) as gateway,
    ):
        server = Server(gateway.popen, gateway.log, folder)
        asyncio.run(_all_ready(producer, first, second, gateway))
        token = realm.token("trainer", aud=env["gateway"]["KEYCLOAK_CLIENT_ID"])
        _search(server, token)
        _stream(server, token)
        _submit(env["producer"], folder)


def _run(command: list[str], env: dict[str, str], folder: Path, given: bytes = b"") -> bytes:
    bare = {"PATH": os.environ["PATH"]}
    words = [sys.executable, "-m", *command]
    done = subprocess.run(words, env=bare | env, cwd=folder, input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


async def _all_ready(*processes: Process) -> None:
    await asyncio.gather(*(process.until_ready() for process in processes))


def _search(server: Server, token: str) -> None:
    """A search over all four stores and the embedder, asked for over HTTP by a user of the realm."""
    datasets, bearer = f"{server.url}/api/datasets", {"Authorization": f"Bearer {token}"}
    asked = body("Baugenehmigung", min_quality_score=0.0, search_types=["vector", "graph", "keyword"])
    assert requests.post(datasets, json=asked, timeout=30).status_code == 401
    answer = requests.post(datasets, json=asked, headers=bearer, timeout=30)
    assert answer.status_code < 300, answer.text
    data = ended(server.url, answer.json()["dataset_id"], headers=bearer)
    assert data["status"] == "completed", data
    files = requests.get(f"{datasets}/{data['dataset_id']}/files/manifest.json", headers=bearer, timeout=30)
    manifest = files.json()
    # Each store had its part: nothing was left out, and texts came from where the seed had put them.
    assert manifest["source"]["left_out"] == manifest["source"]["degraded"] == []
    assert manifest["source"]["model"].startswith("hashed-words-384")
    with_text = sum(bool(sample_document(number)["content"].strip()) for number in range(LOADED))
    assert manifest["source"]["count"] == manifest["totals"]["rows"] == with_text
    assert data["dead_letters"] == {}


def _stream(server: Server, token: str) -> None:
    """The search of docs/deployment.md, as it stands there."""
    (asked,) = re.findall(r"^  -d '({.*?})'$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = requests.post(f"{server.url}/api/datasets/stream", data=asked, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert [line for line in answer.text.splitlines() if "Baugenehmigung" in json.loads(line)["text"]]


def _submit(env: dict[str, str], folder: Path) -> None:
    """The first job of docs/deployment.md, submitted as it says: by the settings of the producer."""
    text = PAGE.read_text()
    (job,) = re.findall(r"submit - --wait <<'JOB'\n(.*?)\nJOB\n", text, re.DOTALL)
    ended_as = json.loads(_run(["shardline", "submit", "-", "--wait", "--json"], env, folder, job.encode()))
    assert ended_as["state"] == "completed"
