"""The signer of datasets, from the settings, and the check of a signature."""

from functools import partial
from pathlib import Path

from shardline_common.dataset.publish import Sign
from shardline_common.dataset.verify import IsSigned
from shardline_common.settings.load import Settings


def dataset_signer(settings: Settings) -> Sign | None:
    """Return the function that signs finished datasets; None without SHARDLINE_SIGNING_KEY.

    Raises:
        UsageError: the setting is not a private Ed25519 key.
    """
    if settings.signing_key is None:
        return None
    from shardline_common.dataset.signing import private_key

    return private_key(settings.signing_key.get_secret_value()).sign


def signature_check(key: Path) -> IsSigned:
    """Return the check whether a signature is that of the public key in a PEM file. Raises UsageError."""
    from shardline_common.dataset.signing import is_signed_by, public_key

    return partial(is_signed_by, public_key(key))
