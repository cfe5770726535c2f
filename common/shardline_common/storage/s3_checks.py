"""What a store says about itself: its clock, and whether a bucket keeps versions."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shardline_common.storage.s3_faults import NotS3Answer

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client as Client

    from shardline_common.storage.s3 import S3Client


async def clock_ahead(client: "S3Client", bucket: str) -> float | None:
    """The seconds by which the store's clock is ahead of this machine's, to a second; None if it is not told.

    It is the Date of an answer, also of a refusal: a store refuses all requests when the clocks differ much.

    Raises:
        StoreUnavailable: the store does not answer.
    """

    async def ask(s3: "Client") -> float | None:
        sent = datetime.now(UTC)
        try:
            answer: Any = await s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
        except ClientError as error:
            answer = error.response
        received = datetime.now(UTC)
        try:
            date = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
            # The header is cut to a second, so the store's time was half a second later on average.
            return (date - sent).total_seconds() + 0.5 - (received - sent).total_seconds() / 2
        except (KeyError, ValueError, TypeError):
            return None

    return await client.call(bucket, "ask for the time", ask)


async def keeps_versions(client: "S3Client", bucket: str) -> bool | None:
    """Whether the bucket keeps versions of deleted objects, or has kept them before; None if it is not told.

    Raises:
        StoreUnavailable: the store does not answer.
    """

    async def ask(s3: "Client") -> bool | None:
        try:
            return "Status" in await s3.get_bucket_versioning(Bucket=bucket)
        except (ClientError, NotS3Answer):
            # No right to ask, or a store without versions that does not know the request. The answer is only
            # shown: a delete must not wait for a store that cannot give it.
            return None

    return await client.call(bucket, "ask for versions", ask)
