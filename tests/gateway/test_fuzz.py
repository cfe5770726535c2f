"""Generated requests: no 500, and no response that the OpenAPI description does not have."""

import time
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.config import SchemathesisConfig

from shardline.gateway.app import bare_app
from tests.gateway.json_values import FILTERS, TEXTS
from tests.gateway.realm import Realm
from tests.gateway.system import SECONDS, Server, body, ended

ENDLESS = "/api/events"
# JSON Schema cannot express all rules: on names, signed links and known ids. And like Clara's server, the
# gateway accepts "5" for 5, and unknown parameters.
CHECKS = {
    "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "403", "404", "409", "416", "422"]},
    "negative_data_rejection": {"enabled": False},
}
api = schemathesis.openapi.from_dict(
    bare_app().openapi(), config=SchemathesisConfig.from_dict({"checks": CHECKS})
)


@pytest.fixture(scope="module")
def headers(realm: Realm) -> dict[str, str]:
    """The headers of a caller with all permissions."""
    return {"Authorization": f"Bearer {realm.token('admin', exp=int(time.time()) + 3600)}"}


@pytest.fixture(scope="module")
def dataset(secure: Server, headers: dict[str, str]) -> str:
    """A completed dataset, so that some ids are known."""
    url = f"{secure.url}/api/datasets"
    found: str = requests.post(url, json=body(top_k=20), headers=headers, timeout=SECONDS).json()[
        "dataset_id"
    ]
    ended(secure.url, found, headers=headers)
    return found


@api.parametrize()
@settings(
    max_examples=40,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)
def test_no_request_breaks_the_gateway(
    case: schemathesis.Case[Any], secure: Server, headers: dict[str, str], dataset: str
) -> None:
    if "dataset_id" in case.path_parameters and len(str(case.path_parameters["dataset_id"])) % 2:
        case.path_parameters["dataset_id"] = dataset
    if case.path != ENDLESS:
        case.call_and_validate(base_url=secure.url, headers=headers, timeout=SECONDS)
        return
    sent = case.as_transport_kwargs(base_url=secure.url, headers=headers)
    with requests.request(**sent, stream=True, timeout=SECONDS) as response:
        assert response.status_code in (200, 401, 405)


@pytest.mark.parametrize("path", ["/api/datasets", "/api/datasets/stream"])
def test_no_filter_breaks_the_gateway(path: str, secure: Server, headers: dict[str, str]) -> None:
    operation = api[path]["POST"]

    @settings(max_examples=30, derandomize=True, deadline=None)
    @given(FILTERS, TEXTS)
    def check(filters: dict[str, Any], text: str) -> None:
        content = body(text or "a", top_k=1, filters=filters)
        case = operation.Case(body=content, media_type="application/json")
        case.call_and_validate(base_url=secure.url, headers=headers, timeout=SECONDS)

    check()
