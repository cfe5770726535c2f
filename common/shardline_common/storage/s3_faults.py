"""The meaning of each exception of the S3 client that is no answer of the store: a table for botocore."""

from collections.abc import Mapping

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from shardline_common.http.client_faults import (
    ADDRESS,
    DROPPED,
    HTTP_FAULTS,
    NO_TLS,
    PROXY,
    SILENT,
    UNREACHABLE,
    Fault,
)

_CHAIN = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
_CONFIG = "correct the AWS settings: AWS_PROFILE, and the files that AWS_CONFIG_FILE names"
_LOGIN = "log in again with `aws sso login`"
_NAME = Fault(True, "the request is not allowed", "correct the bucket's name and the key")
_SETTING = Fault(True, "a setting of AWS is wrong", _CONFIG)
_NO_KEYS = Fault(True, "no credentials are found", _CHAIN)
_SOURCE = Fault(False, "the credentials cannot be read", "check the source of the credentials that it names")
_SSO = Fault(True, "the login at AWS has ended", _LOGIN)
_CLIENT = Fault(True, "the client cannot make the request", "install the versions that Shardline requires")
_PROXIES = Fault(True, "the settings of the proxy are wrong", PROXY.advice)
_DAMAGED = Fault(False, "its answer is damaged", "check the proxies between this machine and the store")
NOT_S3 = Fault(
    False,
    "the answer is not one of an S3 store",
    "check scheme, host and port in {address}, and HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
)
# A region that does not exist is a host name that does not exist.
REGION_ADVICE = "check AWS_REGION: AWS has no store for this region that this machine can resolve"


class NotS3Answer(ConnectionError):
    """The status is one of success, and the body is not what an S3 store answers to the request."""


S3_FAULTS: Mapping[type[BaseException], Fault] = {
    **HTTP_FAULTS,
    NotS3Answer: NOT_S3,
    ResponseParserError: NOT_S3,
    # Of the connection.
    boto.HTTPClientError: UNREACHABLE,
    boto.ConnectionError: UNREACHABLE,
    boto.EndpointConnectionError: UNREACHABLE,
    boto.SSLError: Fault(True, NO_TLS.meaning, NO_TLS.advice, wraps=True),
    boto.ConnectionClosedError: DROPPED,
    boto.ReadTimeoutError: SILENT,
    boto.ConnectTimeoutError: SILENT,
    boto.ProxyConnectionError: Fault(False, PROXY.meaning, PROXY.advice, wraps=True),
    boto.InvalidProxiesConfigError: _PROXIES,
    boto.ResponseStreamingError: DROPPED,
    boto.IncompleteReadError: DROPPED,
    **dict.fromkeys((boto.ChecksumError, boto.FlexibleChecksumError), _DAMAGED),
    boto.CapacityNotAvailableError: SILENT,
    # Of the credentials.
    **dict.fromkeys(
        (
            boto.NoCredentialsError,
            boto.NoAuthTokenError,
        ),
        _NO_KEYS,
    ),
    boto.PartialCredentialsError: Fault(True, "the credentials are not complete", _CHAIN),
    **dict.fromkeys(
        (
            boto.CredentialRetrievalError,
            boto.MetadataRetrievalError,
            boto.TokenRetrievalError,
        ),
        _SOURCE,
    ),
    boto.UnknownCredentialError: Fault(True, "the credentials are set wrongly", _CONFIG),
    boto.RefreshWithMFAUnsupportedError: Fault(True, "the credentials need a code of a device", _CHAIN),
    boto.SSOError: _SSO,
    # Of the settings.
    boto.ProfileNotFound: Fault(True, "the profile does not exist", "correct AWS_PROFILE"),
    boto.ConfigParseError: Fault(True, "the AWS configuration cannot be read", _CONFIG),
    boto.ConfigNotFound: Fault(True, "the AWS configuration cannot be read", _CONFIG),
    **dict.fromkeys(
        (
            boto.InvalidConfigError,
            boto.InvalidIMDSEndpointError,
            boto.InvalidIMDSEndpointModeError,
            boto.InvalidEndpointConfigurationError,
            boto.InvalidEndpointDiscoveryConfigurationError,
            boto.InvalidRetryConfigurationError,
            boto.InvalidRetryModeError,
            boto.InvalidS3UsEast1RegionalEndpointConfigError,
            boto.InvalidSTSRegionalEndpointsConfigError,
            boto.InvalidDefaultsMode,
            boto.InvalidChecksumConfigError,
            boto.UnsupportedS3ConfigurationError,
            boto.UnsupportedS3AccesspointConfigurationError,
            boto.UnsupportedS3ControlConfigurationError,
        ),
        _SETTING,
    ),
    boto.InvalidS3AddressingStyleError: Fault(
        True, "the addressing style is wrong", "set S3_ADDRESSING_STYLE to auto, path or virtual"
    ),
    # Of the region and the endpoint.
    boto.BaseEndpointResolverError: Fault(True, "there is no such region", "correct AWS_REGION"),
    boto.UnknownRegionError: Fault(True, "there is no such region", "correct AWS_REGION"),
    boto.InvalidRegionError: Fault(True, "the region is not valid", "correct AWS_REGION"),
    boto.ServiceNotInRegionError: Fault(True, "the region has no S3", "correct AWS_REGION"),
    boto.EndpointProviderError: ADDRESS,
    # Of names.
    **dict.fromkeys(
        (
            boto.ParamValidationError,
            boto.ValidationError,
            boto.MissingParametersError,
            boto.InvalidDNSNameError,
            boto.InvalidHostLabelError,
            boto.UnsupportedS3ArnError,
            boto.UnsupportedS3ControlArnError,
            boto.UnsupportedOutpostResourceError,
        ),
        _NAME,
    ),
    # Of the client itself, or of calls that Shardline does not make.
    **dict.fromkeys(
        (
            boto.DataNotFoundError,
            boto.ApiVersionNotFoundError,
            boto.UnknownSignatureVersionError,
            boto.UnsupportedSignatureVersionError,
            boto.UnknownServiceStyle,
            boto.PaginationError,
            boto.OperationNotPageableError,
            boto.UnseekableStreamError,
            boto.WaiterError,
            boto.WaiterConfigError,
            boto.InvalidExpressionError,
            boto.UnknownClientMethodError,
            boto.StubResponseError,
            boto.MD5UnavailableError,
            boto.MissingDependencyException,
            boto.AwsChunkedWrapperError,
            boto.UnsupportedServiceProtocolsError,
            boto.UndefinedModelAttributeError,
        ),
        _CLIENT,
    ),
}
# Of credentials that are read. Their sources run programs and parse what these print: any error may come.
CREDENTIAL_FAULTS: Mapping[type[BaseException], Fault] = {
    **S3_FAULTS,
    **dict.fromkeys(
        (ValueError, Exception),
        Fault(
            True,
            "their source gives no credentials",
            "check credential_process and the other sources in the AWS configuration",
        ),
    ),
}
