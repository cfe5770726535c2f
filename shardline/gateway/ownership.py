"""Who may cancel, retry and purge a dataset: its owner and admins, or all by role. Pure."""

from enum import StrEnum

from shardline.gateway.problems import Problem
from shardline.gateway.users import ADMIN, User
from shardline_common.job.state import JobState


class Ownership(StrEnum):
    """The value of GATEWAY_OWNERSHIP."""

    OWNER = "owner"
    SHARED = "shared"

    def may_change(self, user: User, state: JobState) -> bool:
        """Whether the user may cancel, retry or purge the dataset, as far as its owner decides it.

        A dataset without an owner belongs to admins. The job's `submitted_by` says nothing: anyone can write
        it.
        """
        if self is Ownership.SHARED or ADMIN in user.roles:
            return True
        return state.submission.owner == user.owner

    def require(self, user: User, state: JobState) -> None:
        """Raise Problem (403) when the user may not change the dataset."""
        if not self.may_change(user, state):
            whose = "another user" if state.owner else "no user of this gateway"
            raise Problem(
                403,
                f"the dataset '{state.spec.job_id}' belongs to {whose}; only its owner and admins may "
                "cancel, retry or purge it",
            )
