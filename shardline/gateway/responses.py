"""What Clara's clients get: the shapes of the answers. Pure."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from shardline.services.client import JobView
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
    """A dataset as Clara's clients know it. `state` is Shardline's own, finer word for `status`."""

    dataset_id: str
    name: str
    description: str
    status: Status
    state: str
    created_at: str | None = Field(description="None until a producer has taken the job.")
    updated_at: str | None
    created_by: str | None
    query_text: str | None
    document_count: int = Field(description="Rows that landed.")
    total_tokens: int = Field(description="Words of all rows; 0 until the dataset is complete.")
    quality_score_avg: float = Field(description="Mean score of all rows; 0 until the dataset is complete.")
    export_paths: dict[str, str]
    progress: float = Field(description="Share that is done, 0 to 1.")
    rejected: dict[str, int] = Field(description="Documents that the filters dropped, by reason.")
    dead_letters: dict[str, int] = Field(description="What could not be a document, by reason.")
    message: str | None = Field(description="Why it failed, or a warning.")
    metadata: dict[str, Any]


class DatasetAnswer(BaseModel):
    """The answer about one dataset."""

    success: bool
    dataset_id: str
    status: Status
    message: str
    data: Dataset


class DatasetList(BaseModel):
    """The datasets of a page, and how many there are in all."""

    datasets: list[Dataset] | dict[str, Dataset] = Field(
        description="A list; for the User-Agent `Clara-Frontend/…` an object by dataset_id."
    )
    total_count: int
    limit: int | None = None
    offset: int = 0


class ExportAnswer(BaseModel):
    """Where an export lies, and a link that works without a token for a while."""

    success: bool
    message: str
    export_path: str
    download_url: str
    expires_in: int = Field(description="Seconds that the link works.")


class Health(BaseModel):
    """Whether the gateway answers, and what it can reach."""

    status: Literal["healthy"]
    service: Literal["clara_dataset_backend"]
    version: str
    port: int
    environment: str
    uds3_available: bool
    jobs_available: bool = Field(description="Whether Kafka can be read.")
    datasets_count: int
    timestamp: str


class Root(BaseModel):
    """What is where, for programs."""

    service: str
    version: str
    status: str
    endpoints: dict[str, str]


class ProblemDetails(BaseModel):
    """A refusal (RFC 9457). For a body that does not fit, `detail` lists what is wrong with each field."""

    type: str
    title: str
    status: int
    detail: str | list[dict[str, Any]]
    request_id: str


def dataset_of(view: JobView, manifest: Mapping[str, Any] | None, exports: Mapping[str, str]) -> Dataset:
    """A dataset of its job, of its manifest where it is complete, and of the exports made so far."""
    state, spec, progress = view.state, view.state.spec, view.progress
    totals = manifest["totals"] if manifest else {}
    return Dataset(
        dataset_id=spec.job_id,
        name=spec.name,
        description=spec.purpose or "",
        status=_STATUS[state.state],
        state=state.state.value,
        created_at=state.accepted_at or None,
        updated_at=state.updated_at or None,
        created_by=spec.submitted_by,
        query_text=spec.query.text,
        document_count=totals.get("rows", progress.rows),
        total_tokens=totals.get("words") or 0,
        quality_score_avg=totals.get("mean_quality") or 0.0,
        export_paths=dict(exports),
        progress=round(view.ratio, 4),
        rejected=dict(manifest["rejected"] if manifest else progress.rejected),
        dead_letters=dict(manifest["dead_letters"] if manifest else progress.dead),
        message=state.message or state.warning,
        metadata={"attempt": state.attempt, "labels": spec.labels},
    )


def status_of(view: JobView) -> Status:
    """Clara's word for a job's state."""
    return _STATUS[view.state.state]
