"""The filters of a job: `quality.filters`, added to those of `quality.preset`."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from shardline_common.job.spec_model import Model

FILTER_NAME = r"^[a-z][a-z0-9_]{0,62}$"


class FilterUse(Model):
    """A filter of a job, with parameters of its own: docs/filters.md lists them by filter.

    A filter that the preset has too replaces the preset's parameters one by one. A null bound is off.
    """

    # The names of parameters are those of the filter, which may come from another package. They are checked
    # where a job is accepted (`check_filters`), so that every process can read the job of any other.
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)

    name: Annotated[
        str,
        Field(
            pattern=FILTER_NAME,
            description="The name of the filter: one of Shardline, or of another package that is installed.",
            examples=["length"],
        ),
    ]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that the job gives."""
        return dict(self.model_extra or {})
