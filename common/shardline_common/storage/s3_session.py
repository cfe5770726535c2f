"""The session of the S3 client: region and endpoint of the AWS configuration, credentials, TLS, proxies."""

import json
import logging
from functools import cache
from typing import Any

import aioboto3
import aiobotocore.session
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from botocore.loaders import Loader, create_loader

from shardline_common.http.tls import tls_context
from shardline_common.storage.s3_credentials import StoreCredentials

DEFAULT_REGION = "us-east-1"
_OF_OBJECTS = ("Key", "Prefix", "CopySource")
# Loggers of the client that write a traceback for an error that is raised as well.
_NOISY = ("aiobotocore.credentials", "aiobotocore.tokens", "botocore.credentials", "botocore.tokens")


class VerifiedHttpSession(AIOHTTPSession):
    """The HTTP session of aiobotocore, which verifies certificates and their names, also behind a proxy.

    Without this class any trusted certificate is accepted for any host: botocore turns off the check of the
    name, because urllib3 makes it, and aiobotocore does not use urllib3. Behind HTTPS_PROXY any certificate
    at all is accepted: aiobotocore makes a TLS context there only for a proxy with a CA of its own.
    """

    def _create_connector(self, _proxy_url: str | None) -> Any:
        return super()._create_connector(None)  # type: ignore[misc]  # the stubs leave it out

    def _get_ssl_context(self) -> Any:
        context = super()._get_ssl_context()  # type: ignore[misc]  # the stubs leave it out
        context.check_hostname = True
        return context


class _Resolver:
    """The component of a session that loads credentials: always the same ones."""

    def __init__(self, credentials: StoreCredentials) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> StoreCredentials:
        """The credentials."""
        return self._credentials


def make_session(credentials: StoreCredentials, region: str | None, ca_bundle: str | None) -> Any:
    """A session with these credentials. Without `region` it has that of the AWS configuration.

    Raises:
        BotoCoreError: the profile does not exist, or the configuration cannot be read.
        UsageError: the CA file that the client will use cannot be read.
    """
    session = _new_session()
    session.register_component("credential_provider", _Resolver(credentials))
    path = ca_bundle or session.get_config_variable("ca_bundle")
    if path:
        tls_context(str(path))
    found = region or session.get_config_variable("region") or DEFAULT_REGION
    return aioboto3.Session(botocore_session=session, region_name=found)


async def load_chain(region: str | None) -> Any:
    """The credentials of the AWS chain, from a new session: one that exists keeps what it has read."""
    session = _new_session()
    session.set_config_variable("region", region or session.get_config_variable("region") or DEFAULT_REGION)
    return await session.get_credentials()


def _new_session() -> Any:
    session = aiobotocore.session.get_session()
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@cache
def _loader(data_path: str | None) -> Loader:
    # It keeps the models that it has parsed, of which that of the endpoints alone takes 50 ms.
    loader = create_loader(data_path)
    _leave_out_keys(loader.load_service_model("s3", "endpoint-rule-set-1"))
    return loader


def _leave_out_keys(endpoints: dict[str, Any]) -> None:
    """Remove from the rules of endpoints the parameters that no rule reads, such as the key of an object.

    The client keeps the endpoints of the last 100 sets of parameters. With the key among them, it would find
    none for most requests, and evaluate all rules again, which takes 0.15 ms.
    """
    rules = json.dumps(endpoints["rules"])
    for name in _OF_OBJECTS:
        if f'"{name}"' not in rules:
            endpoints["parameters"].pop(name, None)


def quiet_client_logs() -> None:
    """Drop the tracebacks that the client logs for errors that it raises as well."""
    for name in _NOISY:
        logger = logging.getLogger(name)
        if _is_below_error not in logger.filters:
            logger.addFilter(_is_below_error)


def _is_below_error(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def client_config(**fields: Any) -> AioConfig:
    """The configuration of the client."""
    return AioConfig(http_session_cls=VerifiedHttpSession, **fields)
