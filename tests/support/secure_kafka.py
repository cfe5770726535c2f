"""A secured broker: TLS, passwords, client certificates, tokens, and an authorizer."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.dev.kafka import Kafka
from deploy.dev.service import HOST
from shardline_common.settings.load import Settings
from tests.services import server_folder, service_started
from tests.support.certificates import Authority
from tests.support.token_endpoint import AUDIENCE, ISSUER, SCOPE, TokenEndpoint, running_endpoint

NAMES = ("producer", "worker", "gateway", "submitter", "reader")
PASSWORD, CLIENT_SECRET = "correct horse", "p&ss: word"
_SASL = "org.apache.kafka.common.security"
_PLAIN = f"{_SASL}.plain.PlainLoginModule"
_SCRAM = f"{_SASL}.scram.ScramLoginModule"
_OAUTH = f"{_SASL}.oauthbearer.OAuthBearer"


class SecureKafka(Kafka):
    """Two listeners with authorization, `sasl` and `mtls`, beside a plain one whose users may do everything.

    `names` are the users that SCRAM knows, and PLAIN, each with PASSWORD.
    """

    port_names = (*Kafka.port_names, "sasl", "mtls")

    def __init__(self, folder: Path, tokens_url: str, names: tuple[str, ...]) -> None:
        super().__init__(folder)
        self._tokens_url = tokens_url
        self._names = names
        self.authority = Authority(folder)
        self._pair = self.authority.issue("broker")

    @property
    def sasl(self) -> str:
        """Address of the listener for names, passwords and tokens."""
        return f"{HOST}:{self.ports['sasl']}"

    @property
    def mtls(self) -> str:
        """Address of the listener for certificates."""
        return f"{HOST}:{self.ports['mtls']}"

    def configure(self, lines: dict[str, str], ports: Mapping[str, int]) -> None:
        """Add the listeners and the authorizer."""
        for name, protocol in (("sasl", "SASL_SSL"), ("mtls", "SSL")):
            for each in ("listeners", "advertised.listeners"):
                lines[each] += f",{name.upper()}://{HOST}:{ports[name]}"
            lines["listener.security.protocol.map"] += f",{name.upper()}:{protocol}"
        lines |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._pair.both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.certificate),
            "listener.name.mtls.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        lines |= {f"listener.name.sasl.{name}": value for name, value in self._mechanisms().items()}

    def _mechanisms(self) -> dict[str, str]:
        users = " ".join(f'user_{name}="{PASSWORD}"' for name in self._names)
        return {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "plain.sasl.jaas.config": f"{_PLAIN} required {users};",
            "scram-sha-256.sasl.jaas.config": f"{_SCRAM} required;",
            "scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
            "oauthbearer.sasl.jaas.config": f"{_OAUTH}LoginModule required;",
            "oauthbearer.sasl.server.callback.handler.class": f"{_OAUTH}ValidatorCallbackHandler",
            "oauthbearer.sasl.oauthbearer.jwks.endpoint.url": f"{self._tokens_url}/keys",
            "oauthbearer.sasl.oauthbearer.expected.audience": AUDIENCE,
            "oauthbearer.sasl.oauthbearer.expected.issuer": ISSUER,
            # A session ends with its token, or after an hour.
            "oauthbearer.connections.max.reauth.ms": "3600000",
        }

    def format_options(self) -> list[str]:
        """The users of SCRAM."""
        return [
            f"--add-scram=SCRAM-SHA-{bits}=[name={name},password={PASSWORD}]"
            for name in self._names
            for bits in (256, 512)
        ]

    def java_options(self) -> list[str]:
        """A broker fetches keys only from addresses that its command line allows."""
        return [f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._tokens_url}/keys"]


@pytest.fixture(scope="session")
def tokens() -> Iterator[TokenEndpoint]:
    """The identity provider of `secure`."""
    with running_endpoint() as endpoint:
        endpoint.clients = dict.fromkeys(NAMES, CLIENT_SECRET)
        yield endpoint


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory, tokens: TokenEndpoint) -> Iterator[SecureKafka]:
    """The secured broker that all tests share. Each test uses its own topic prefix."""
    broker = SecureKafka(server_folder(tmp_path_factory, "secure-kafka"), tokens.url, NAMES)
    with service_started(broker):
        yield broker


def named(secure: SecureKafka, name: str, mechanism: str, **fields: Any) -> Settings:
    """The settings of a user with a password."""
    who = {"kafka_sasl_username": name, "kafka_sasl_password": PASSWORD, "kafka_sasl_mechanism": mechanism}
    return _settings(secure, who | fields)


def tokened(secure: SecureKafka, tokens: TokenEndpoint, name: str, **fields: Any) -> Settings:
    """The settings of a client of the identity provider."""
    oauth = {
        "kafka_sasl_mechanism": "OAUTHBEARER",
        "kafka_sasl_oauthbearer_token_url": f"{tokens.url}/token",
        "kafka_sasl_oauthbearer_client_id": name,
        "kafka_sasl_oauthbearer_client_secret": CLIENT_SECRET,
        "kafka_sasl_oauthbearer_scope": SCOPE,
    }
    return _settings(secure, oauth | fields)


def certified(secure: SecureKafka, name: str, **fields: Any) -> Settings:
    """The settings of the owner of a certificate, whose key is encrypted."""
    pair = secure.authority.issue(name, PASSWORD)
    files = {
        "kafka_bootstrap_servers": secure.mtls,
        "kafka_security_protocol": "SSL",
        "kafka_ssl_certfile": str(pair.certificate),
        "kafka_ssl_keyfile": str(pair.key),
        "kafka_ssl_key_password": PASSWORD,
    }
    return _settings(secure, files | fields)


def _settings(secure: SecureKafka, fields: dict[str, Any]) -> Settings:
    values = {
        "kafka_bootstrap_servers": secure.sasl,
        "kafka_security_protocol": "SASL_SSL",
        "kafka_ssl_cafile": str(secure.authority.certificate),
        "kafka_request_timeout_ms": 15_000,
    }
    return Settings(**(values | fields))
