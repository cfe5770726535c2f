"""The credentials of an S3 client: those of the settings, or of the AWS chain; both can be read again."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from aiobotocore.credentials import AioCredentials
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, NoCredentialsError

from shardline_common.errors import ShardlineError
from shardline_common.http.client_faults import words
from shardline_common.runtime.threads import run_in_thread

_log = logging.getLogger(__name__)
LoadChain = Callable[[], Any]


class AccessKeys(NamedTuple):
    """An access key of S3, with the token of a temporary one."""

    key_id: str | None = None
    secret: str | None = None
    token: str | None = None


class StoreCredentials(AioCredentials):
    """Implements the credentials of aiobotocore, from keys, or from the AWS chain when there are none.

    The chain is loaded at the first request, and again after it had none, so that a process that was started
    before its credentials finds them.

    Args:
        keys: the keys of the settings.
        read_again: returns the keys from where the settings were read; None: they cannot change.
        load_chain: loads the credentials of the AWS chain anew; a coroutine function.
    """

    def __init__(
        self, keys: AccessKeys, read_again: Callable[[], AccessKeys] | None, load_chain: LoadChain
    ) -> None:
        super().__init__(keys.key_id or "", keys.secret or "", keys.token, method="shardline")
        self._keys = keys
        self._read_again = read_again
        self._load_chain = load_chain
        self._chain: Any = None
        self._lock = asyncio.Lock()
        self.generation = 0

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:  # type: ignore[override]  # as AioCredentials
        """The current keys.

        Raises:
            NoCredentialsError: there are none.
            Exception: those of the sources of the chain, which may be of any class.
        """
        if self._keys.key_id and self._keys.secret:
            return ReadOnlyCredentials(self._keys.key_id, self._keys.secret, self._keys.token)
        async with self._lock:
            if self._chain is None:
                self._chain = await self._load_chain()
        if self._chain is None:
            raise NoCredentialsError
        frozen: ReadOnlyCredentials = await self._chain.get_frozen_credentials()
        return frozen

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret values of the settings, which no message may hold."""
        return tuple(filter(None, (self._keys.secret, self._keys.token)))

    async def renew(self, used: int) -> bool:
        """Read the keys again after the store refused those of the generation `used`.

        Return whether they differ now from those.
        """
        async with self._lock:
            try:
                if self.generation == used and await self._read():
                    self.generation += 1
            except (ShardlineError, BotoCoreError, OSError, ValueError) as error:
                _log.warning("the credentials cannot be read again: %s", words(error))
            return self.generation != used

    async def _read(self) -> bool:
        if self._read_again is not None:
            found = await run_in_thread(self._read_again)
            changed, self._keys = found != self._keys, found
            return changed
        if not isinstance(self._chain, AioCredentials):
            # The client renews the others by itself, from a role or a process.
            return False
        found, old = await self._load_chain(), self._chain
        if found is None:
            return False
        self._chain = found
        return bool(await found.get_frozen_credentials() != await old.get_frozen_credentials())
