"""What a setting of this process gives a job that leaves a field out. Pure."""

from typing import Any

from shardline_common.settings.load import Settings


def job_defaults(settings: Settings) -> dict[str, Any]:
    """Return the values of fields that a job leaves out, where a setting changes the job's own default.

    They are written into the job, because a dataset is a function of its job: workers with other settings
    would write another dataset under the same keys.
    """
    return {} if settings.dead_letter_originals else {"dead_letter_originals": False}
