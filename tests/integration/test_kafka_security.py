"""Kafka as companies run it: names and passwords, certificates, tokens, over TLS."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shardline.services.wiring.broker import kafka_options
from shardline_common.errors import BrokerUnavailable, UsageError
from shardline_common.kafka.broker import open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.broker import Message, TopicSpec
from shardline_common.settings.load import Settings
from tests.faults.proxies import until
from tests.stores import connections_to
from tests.support.kafka_rights import Acl, open_rights
from tests.support.secure_kafka import PASSWORD, SecureKafka, certified, named, tokened
from tests.support.token_endpoint import AUDIENCE, TokenEndpoint

WRONG = "no such password"


async def is_known_as(name: str, secure: SecureKafka, who: Settings) -> None:
    """The broker takes them for this user: they may do what this user may, and nothing else."""
    topics = [f"{secrets.token_hex(4)}-{kind}" for kind in ("mine", "other")]
    async with (
        open_kafka(KafkaOptions(secure.bootstrap)) as everyone,
        open_rights(secure.bootstrap) as rights,
    ):
        for topic in topics:
            await everyone.create_topic(TopicSpec(topic, 1))
        await rights.give([Acl(f"User:{name}", "topic", topics[0], "literal", "Write")])
        async with open_kafka(kafka_options(who)) as broker:
            await broker.check()
            assert await broker.auto_creates_topics() is None
            await broker.publish(topics[0], [Message(b"key", b"value")])
            with pytest.raises(BrokerUnavailable, match="Kafka does not allow it") as refused:
                await broker.partitions(topics[1])
            assert "--print-acls" in str(refused.value.hint)


async def refused(who: Settings) -> BrokerUnavailable:
    async with open_kafka(kafka_options(who)) as broker:
        with pytest.raises(BrokerUnavailable) as error:
            await broker.check()
    port = int(str(who.kafka_bootstrap_servers).rpartition(":")[2])
    await until(lambda: connections_to(port) == 0, "the end of what was refused")
    return error.value


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_name_and_a_password(secure: SecureKafka, mechanism: str) -> None:
    await is_known_as("reader", secure, named(secure, "reader", mechanism))
    error = await refused(named(secure, "reader", mechanism, kafka_sasl_password=WRONG))
    assert "refuses the credentials" in str(error)
    assert "KAFKA_SASL_" in str(error.hint)
    assert WRONG not in f"{error}{error.hint}"


async def test_a_certificate_with_an_encrypted_key(secure: SecureKafka) -> None:
    await is_known_as("reader", secure, certified(secure, "reader"))
    error = await refused(certified(secure, "reader", kafka_ssl_certfile=None))
    assert secure.mtls in f"{error}{error.hint}"


async def test_a_broker_that_an_unknown_authority_signed_is_not_spoken_to(secure: SecureKafka) -> None:
    error = await refused(named(secure, "reader", "PLAIN", kafka_ssl_cafile=None))
    assert "certificate verify failed" in str(error)
    assert "KAFKA_SSL_CAFILE" in str(error.hint)


async def test_a_token_is_asked_for_once_and_renewed_in_time(
    secure: SecureKafka, tokens: TokenEndpoint
) -> None:
    before = tokens.given
    await is_known_as("gateway", secure, tokened(secure, tokens, "gateway"))
    assert tokens.given == before + 1
    options = kafka_options(tokened(secure, tokens, "gateway"))
    assert options.tokens is not None
    tokens.lifetime = 0
    first = await options.tokens.token()
    tokens.lifetime = 300
    second = await options.tokens.token()
    assert first != second == await options.tokens.token()
    assert tokens.given == before + 3


async def test_a_session_that_ends_with_its_token_goes_on_with_another(
    secure: SecureKafka, tokens: TokenEndpoint
) -> None:
    topic, sent = secrets.token_hex(4), 0
    async with (
        open_kafka(KafkaOptions(secure.bootstrap)) as everyone,
        open_rights(secure.bootstrap) as rights,
    ):
        await everyone.create_topic(TopicSpec(topic, 1))
        await rights.give([Acl("User:gateway", "topic", topic, "literal", "Write")])
        before, tokens.lifetime = tokens.given, 3
        try:
            async with open_kafka(kafka_options(tokened(secure, tokens, "gateway"))) as broker:
                async with asyncio.timeout(60):
                    while tokens.given < before + 3:
                        await broker.publish(topic, [Message(b"key", b"%d" % sent)])
                        sent += 1
                        await asyncio.sleep(0.05)
        finally:
            tokens.lifetime = 300
        async with everyone.table_reader(topic) as table:
            values = [record.value for record in await table.catch_up(deadline=30)]
    assert values == [b"%d" % number for number in range(sent)]


async def test_a_token_that_is_not_given(secure: SecureKafka, tokens: TokenEndpoint) -> None:
    wrong = tokened(secure, tokens, "gateway", kafka_sasl_oauthbearer_client_secret=WRONG)
    error = await refused(wrong)
    assert "gives no token for Kafka (401 invalid_client)" in str(error)
    assert "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET" in str(error.hint)
    assert WRONG not in f"{error}{error.hint}"
    away = "http://127.0.0.1:9/token"
    error = await refused(tokened(secure, tokens, "gateway", kafka_sasl_oauthbearer_token_url=away))
    assert f"{away} gives no token" in str(error)


async def test_another_issuers_token_is_refused(secure: SecureKafka, tokens: TokenEndpoint) -> None:
    tokens.audience = "another service"
    try:
        error = await refused(tokened(secure, tokens, "gateway"))
    finally:
        tokens.audience = AUDIENCE
    assert "refuses the credentials" in str(error)


def key_of_another(options: KafkaOptions, folder: Path) -> KafkaOptions:
    return replace(options, ssl_keyfile=str(folder / "broker-key.pem"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda options, _: replace(options, ssl_cafile="/no/such.pem"), "KAFKA_SSL_CAFILE: /no/such.pem"),
        (lambda options, _: replace(options, ssl_key_password=None), "KAFKA_SSL_CERTFILE"),
        (lambda options, _: replace(options, ssl_key_password=WRONG), "KAFKA_SSL_CERTFILE"),
        (key_of_another, "KAFKA_SSL_CERTFILE"),
    ],
)
async def test_a_file_of_tls_that_cannot_be_used_is_named_at_the_start(
    secure: SecureKafka, change: Callable[[KafkaOptions, Path], KafkaOptions], sentence: str
) -> None:
    options = kafka_options(certified(secure, "reader"))
    with pytest.raises(UsageError, match=sentence) as error:
        async with open_kafka(change(options, secure.folder)):
            pass
    assert PASSWORD not in f"{error.value}{error.value.hint}{options}"


@pytest.mark.parametrize(
    ("mechanism", "missing"), [("SCRAM-SHA-512", "PASSWORD"), ("OAUTHBEARER", "TOKEN_URL")]
)
async def test_what_a_mechanism_needs_is_named_at_the_start(mechanism: str, missing: str) -> None:
    options = KafkaOptions("127.0.0.1:9", security_protocol="SASL_SSL", sasl_mechanism=mechanism)
    with pytest.raises(UsageError, match=mechanism) as error:
        async with open_kafka(options):
            pass
    assert missing in str(error.value.hint)
