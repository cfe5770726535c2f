"""Who may cancel, retry and purge a dataset: its owner and admins, or all by role (GATEWAY_OWNERSHIP)."""

from pathlib import Path

import pytest

from shardline.gateway.ownership import Ownership
from shardline_common.job.state import JobState, State
from tests.gateway.inprocess import ISSUER, USERS, Gateway, gateway_in_memory
from tests.gateway.system import body
from tests.make import job

DATASETS = "/api/datasets"
CHANGES = [
    ("POST", "cancel"), ("POST", "retry"), ("DELETE", ""), ("DELETE", "?purge=true"),
]  # fmt: skip


async def created(gateway: Gateway, user: str) -> str:
    made = await gateway.call("POST", DATASETS, user, body=body(name=f"Von {user}"))
    assert made.status == 200, made.text
    found: str = made.json()["dataset_id"]
    return found


@pytest.mark.parametrize(("method", "change"), CHANGES)
async def test_only_the_owner_and_admins_change_a_dataset(tmp_path: Path, method: str, change: str) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        dataset_id = await created(gateway, "erika")
        path = f"{DATASETS}/{dataset_id}" + (f"/{change}" if change.isalpha() else change)
        for stranger in ("otto", "ina", "erika-elsewhere"):
            refused = await gateway.call(method, path, stranger)
            assert refused.status == 403, (stranger, refused.text)
            # Others read by role.
            assert (await gateway.call("GET", f"{DATASETS}/{dataset_id}", stranger)).status == 200
            last = gateway.audit()[-1]
            assert (last["user_id"], last["outcome"]) == (USERS[stranger].id, "403")
            assert last["dataset"] == dataset_id
        assert len(await gateway.messages()) == 1
        # A retry of a running job is refused for its state.
        expected = 409 if change == "retry" else 200
        for allowed in ("anna", "erika"):
            assert (await gateway.call(method, path, allowed)).status == expected


async def test_a_dataset_without_an_owner_belongs_to_admins(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        # `submitted_by` is what anyone may write.
        spec = job(job_id="from-kafka", submitted_by="erika@example.org")
        await gateway.accepted(spec, State.FAILED)
        path = f"{DATASETS}/from-kafka"
        refused = await gateway.call("POST", f"{path}/retry", "erika")
        assert refused.status == 403
        assert "admins" in refused.json()["detail"]
        assert (await gateway.call("GET", path, "erika")).json()["data"]["owner"] is None
        assert (await gateway.call("POST", f"{path}/retry", "anna")).status == 200


async def test_a_retry_of_an_admin_keeps_the_owner(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        spec = job(job_id="hers")
        owned = {"owner": "user-1", "owner_issuer": ISSUER}
        await gateway.accepted(spec, State.FAILED, **owned)
        assert (await gateway.call("POST", f"{DATASETS}/hers/retry", "anna")).status == 200
        await gateway.accepted(spec, State.RUNNING, attempt=2, **owned)
        assert (await gateway.call("GET", f"{DATASETS}/hers", "otto")).json()["data"]["owner"] == "user-1"
        assert (await gateway.call("POST", f"{DATASETS}/hers/cancel", "erika")).status == 200


async def test_shared_datasets_are_changed_by_role(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path, gateway_ownership="shared") as gateway:
        dataset_id = await created(gateway, "erika")
        assert (await gateway.call("POST", f"{DATASETS}/{dataset_id}/cancel", "ina")).status == 200
        purge = f"{DATASETS}/{dataset_id}?purge=true"
        assert (await gateway.call("DELETE", purge, "ina")).status == 403
        assert (await gateway.call("DELETE", purge, "otto")).status == 200


async def test_the_page_shows_buttons_only_to_whom_they_work(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        dataset_id = await created(gateway, "erika")
        html = {"accept": "text/html"}
        for path in ("/", f"/jobs/{dataset_id}"):
            for user, shown in (("erika", True), ("anna", True), ("otto", False), ("ina", False)):
                page = await gateway.call("GET", path, user, headers=html)
                assert page.status == 200
                assert (f'action="/jobs/{dataset_id}/cancel"' in page.text) == shown, (path, user)
        origin = {"origin": "http://gateway.example.org"}
        cancel = f"/jobs/{dataset_id}/cancel"
        assert (await gateway.call("POST", cancel, "otto", headers=html | origin)).status == 403
        assert (await gateway.call("POST", cancel, "erika", headers=html | origin)).status == 303


@pytest.mark.parametrize("owner", [None, "user-1", "user-2"])
@pytest.mark.parametrize("issuer", [None, ISSUER])
def test_nobody_but_the_same_subject_of_the_same_issuer_is_the_owner(
    owner: str | None, issuer: str | None
) -> None:
    state = JobState(job(), owner=owner, owner_issuer=issuer if owner else None)
    allowed = {name for name, user in USERS.items() if Ownership.OWNER.may_change(user, state)}
    expected = {"user-1": {"erika"}, "user-2": {"otto"}}.get(owner or "", set()) if issuer else set()
    assert allowed == {"anna"} | expected
    assert all(Ownership.SHARED.may_change(user, state) for user in USERS.values())
