"""The bodies of the API's responses, as Clara's clients read them. Pure.

The class names are the component names of the OpenAPI description, so generated clients use them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from shardline.services.job_view import JobView
from shardline_common.job.state import State

Status = Literal["pending", "processing", "completed", "failed"]
_STATUS: dict[State, Status] = {
    State.QUEUED: "pending",
    State.RUNNING: "processing",
    State.COMPLETING: "processing",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "failed",
}


class Dataset(BaseModel):
    """A dataset as Clara's clients know it. `state` is the state of its job, finer than `status`."""

    dataset_id: str
    name: str
    description: str
    status: Status
    state: str
    created_at: str = Field(description="When the dataset was submitted.")
    updated_at: str | None
    created_by: str | None
    owner: str | None = Field(description="Subject of the owner's token; null: it belongs to admins.")
    query_text: str | None
    document_count: int = Field(description="Rows written so far.")
    total_tokens: int = Field(description="Words of all rows; 0 until the dataset is complete.")
    quality_score_avg: float = Field(description="Mean score of all rows; 0 until the dataset is complete.")
    export_paths: dict[str, str]
    progress: float = Field(description="Share of the job that is done, 0 to 1.")
    stage: str | None = Field(
        default=None,
        description="`landing`, `deciding` or `assembling`: the stage of an assembled dataset that is not "
        "complete.",
    )
    rejected: dict[str, int] = Field(description="Documents that the filters rejected, by reason.")
    dead_letters: dict[str, int] = Field(description="Records that could not be documents, by reason.")
    message: str | None = Field(description="Why the job failed, or a warning.")
    metadata: dict[str, Any]


class DatasetAnswer(BaseModel):
    """The response about one dataset."""

    success: bool
    dataset_id: str
    status: Status
    message: str
    data: Dataset


class DatasetList(BaseModel):
    """A page of datasets, and the number of all datasets that match."""

    datasets: list[Dataset] | dict[str, Dataset] = Field(
        description="A list; for the User-Agent `Clara-Frontend/…` an object by dataset_id."
    )
    total_count: int
    limit: int | None = None
    offset: int = 0


class ExportAnswer(BaseModel):
    """Where an export is stored, and a link to it that is valid without a token until it expires."""

    success: bool
    message: str
    export_path: str
    download_url: str
    expires_in: int = Field(description="Seconds for which the link is valid.")


class File(BaseModel):
    """A file of a dataset."""

    file: str
    download_url: str = Field(description="Valid without a token until it expires.")


class FileList(BaseModel):
    """The files of a completed dataset."""

    dataset_id: str
    expires_in: int = Field(description="Seconds for which the links are valid.")
    files: list[File]


class Health(BaseModel):
    """Which services the gateway can reach."""

    status: Literal["healthy"]
    service: Literal["clara_dataset_backend"]
    version: str
    port: int
    environment: str
    uds3_available: bool = Field(description="Whether UDS3 answered when it was last asked.")
    jobs_available: bool = Field(description="Whether Kafka can be read.")
    datasets_count: int
    timestamp: str
    uds3_age_seconds: float | None = Field(
        description="Seconds since UDS3 was asked; null: it was not asked yet."
    )


class Root(BaseModel):
    """The endpoints of the gateway, for programs."""

    service: str
    version: str
    status: str
    endpoints: dict[str, str]


class ProblemDetails(BaseModel):
    """An error (RFC 9457). For a body that is not valid, `detail` lists what is wrong with each field."""

    type: str
    title: str
    status: int
    detail: str | list[dict[str, Any]]
    request_id: str


def dataset_from_view(
    view: JobView,
    manifest: Mapping[str, Any] | None,
    exports: Mapping[str, str],
    public: Callable[[str], str] = str,
) -> Dataset:
    """Make a Dataset of a job.

    Args:
        view: the job.
        manifest: the manifest; None until the dataset is complete.
        exports: the paths of its exports, by format.
        public: hides from a sentence what users must not see.
    """
    state, spec, progress = view.state, view.state.spec, view.progress
    totals = manifest["totals"] if manifest else {}
    return Dataset(
        dataset_id=spec.job_id,
        name=spec.name,
        description=spec.purpose or "",
        status=_STATUS[state.state],
        state=state.state.value,
        created_at=state.submission.submitted_at,
        updated_at=state.updated_at or None,
        created_by=spec.submitted_by,
        owner=state.owner,
        query_text=spec.query.text,
        document_count=totals.get("rows", progress.rows),
        total_tokens=totals.get("words") or 0,
        quality_score_avg=totals.get("mean_quality") or 0.0,
        export_paths=dict(exports),
        progress=round(view.ratio, 4),
        stage=view.stage,
        rejected=dict(manifest["rejected"] if manifest else progress.rejected),
        dead_letters=dict(manifest["dead_letters"] if manifest else progress.dead),
        message=public(message) if (message := state.message or state.warning) else None,
        metadata={"attempt": state.attempt, "labels": spec.labels},
    )


def public_json(view: JobView, public: Callable[[str], str]) -> dict[str, Any]:
    """Return the job as `status --json` prints it, with sentences for users."""
    body = view.to_json()
    return body | {name: public(body[name]) for name in ("message", "warning", "waiting") if body[name]}


def status_from_view(view: JobView) -> Status:
    """Return the state of a job as Clara's status."""
    return _STATUS[view.state.state]
