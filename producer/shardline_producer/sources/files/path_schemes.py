"""Paths that are URIs: `file://` is a local path, and what Shardline does not read names what fetches it."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.files.file_errors import source_invalid

_URI = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
# RFC 8089 allows one slash as well.
_FILE = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>/.*)", re.IGNORECASE | re.DOTALL)
_ONE_SLASH = re.compile(r"s3:/(?=[^/])", re.IGNORECASE)
_WILDCARD = re.compile(r"[*?\[]")
# https://bucket.s3.region.amazonaws.com/key, and https://s3.region.amazonaws.com/bucket/key.
_AWS = re.compile(r"(?:(?P<bucket>[^/]+)\.)?s3[.-](?:[a-z0-9-]+\.)*amazonaws\.com/(?P<key>.+)", re.IGNORECASE)
_HUB = re.compile(
    r"huggingface\.co/datasets/(?P<repo>[^/]+/[^/]+)(?:/(?:resolve|blob|raw|tree)/(?P<rev>[^/]+)/?(?P<path>.*))?",
    re.IGNORECASE | re.DOTALL,
)
# A question mark is a wildcard in these. In all others, a password or a signature may stand behind it.
_WITH_WILDCARDS = frozenset({"gs", "gcs", "hf", "hdfs", "s3", "s3a", "s3n"})
# What stands before the at sign of these is no user, but a container.
_LAKES = frozenset({"abfs", "abfss", "wasb", "wasbs"})
_FETCH, _SEND = "fetch it first: ", "write into a folder, and send it: "


@dataclass(frozen=True, slots=True)
class ForeignAddress:
    """An address of a store that Shardline does not read or write.

    `shown` is the address without secrets, `fetch` and `send` are what to do to read from it or write to it.
    """

    shown: str
    fetch: str
    send: str


def plain_path(path: str) -> str:
    """The local path of a `file://` URI, whose %-escapes are decoded; any other path as it is.

    Raises:
        JobFailed: the URI names another machine (`source_invalid`).
    """
    found = _FILE.fullmatch(path)
    if found is None:
        return path
    host = found["host"] or ""
    if host.lower() not in ("", "localhost"):
        raise source_invalid(
            f"'{shown_path(path)}' names the machine '{host}': file:// has three slashes before a path "
            "of this one",
            f"write file:///{host}{found['path']}, or the path alone",
        )
    return unquote(found["path"], errors="surrogateescape")


def refuse_unknown_scheme(path: str) -> None:
    """Refuse an address that is neither on this machine nor on S3. The hint is the command that fetches it.

    Raises:
        JobFailed: it is one (`source_invalid`).
    """
    found = foreign_address(path)
    if found is not None:
        raise source_invalid(
            f"'{found.shown}' cannot be read: a path is a file of this machine, or s3://bucket/key",
            found.fetch,
        )


def foreign_address(path: str) -> ForeignAddress | None:
    """What to do about an address of another store; None for a local path, `file://` and `s3://`."""
    if (slash := _ONE_SLASH.match(path)) is not None:
        hint = f"write s3://{shown_path(path[slash.end() :])}"
        return ForeignAddress(shown_path(path), hint, hint)
    match = _URI.fullmatch(path)
    if match is None or match[1] == "s3" or match[1].lower() == "file":
        return None
    scheme, rest = match[1].lower(), match[2]
    if scheme not in _LAKES:
        host, slash_, below = rest.partition("/")
        rest = host.rpartition("@")[2] + slash_ + below
    if scheme not in _WITH_WILDCARDS:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    fetch, send = _ADVICE.get(scheme, _unknown)(f"{scheme}://{rest}")
    return ForeignAddress(shown_path(f"{match[1]}://{rest}"), fetch, send)


def _below(uri: str) -> str:
    return uri.partition("://")[2]


def _web(uri: str) -> tuple[str, str]:
    if (aws := _AWS.fullmatch(_below(uri))) is not None:
        hint = f"write s3://{aws['bucket']}/{aws['key']}" if aws["bucket"] else f"write s3://{aws['key']}"
        return hint, hint
    if (hub := _HUB.fullmatch(_below(uri))) is not None:
        return _hub_commands(hub["repo"], hub["rev"] or "", hub["path"] or "", " --repo-type dataset")
    send = "set AWS_ENDPOINT_URL_S3 to the address of an S3-compatible store, and write s3://bucket/prefix"
    return f"{_FETCH}curl -fLO {shlex.quote(uri)}", send


def _hub(uri: str) -> tuple[str, str]:
    # A model has no kind before its name.
    name = _below(uri).removeprefix("datasets/")
    of_type = " --repo-type dataset" if name != _below(uri) else ""
    owner, _, behind = name.partition("/")
    repo, _, path = behind.partition("/")
    repo, _, revision = repo.partition("@")
    return _hub_commands(f"{owner}/{repo}".rstrip("/"), revision, path, of_type)


def _hub_commands(repo: str, revision: str, path: str, of_type: str) -> tuple[str, str]:
    name = shlex.quote(repo)
    what = shlex.quote(path)
    chosen = "" if not path else f" --include {what}" if _WILDCARD.search(path) else f" {what}"
    version = f" --revision {shlex.quote(revision)}" if revision not in ("", "main") else ""
    return (
        f"{_FETCH}hf download {name}{chosen}{of_type}{version} --local-dir .",
        f"{_SEND}hf upload {name} FOLDER{of_type}",
    )


def _google(uri: str) -> tuple[str, str]:
    place = shlex.quote(f"gs://{_below(uri)}")
    recursive = "" if "." in uri.rpartition("/")[2] else " -r"
    return f"{_FETCH}gcloud storage cp{recursive} {place} .", f"{_SEND}gcloud storage cp -r FOLDER {place}"


def _azure(uri: str) -> tuple[str, str]:
    container, _, path = _below(uri).partition("/")
    container, _, host = container.partition("@")
    account = f" --account-name {shlex.quote(host.partition('.')[0])}" if host else ""
    named, into = "", ""
    if path:
        named, into = f" --pattern {shlex.quote(path)}", f" --destination-path {shlex.quote(path)}"
    place = shlex.quote(container)
    return (
        f"{_FETCH}az storage blob download-batch{account} --source {place}{named} --destination .",
        f"{_SEND}az storage blob upload-batch{account} --source FOLDER --destination {place}{into}",
    )


def _ssh(uri: str) -> tuple[str, str]:
    host, _, path = _below(uri).partition("/")
    place = shlex.quote(f"{host}:/{path}")
    return f"{_FETCH}scp {place} .", f"{_SEND}scp -r FOLDER {place}"


def _hadoop(uri: str) -> tuple[str, str]:
    place = shlex.quote(uri)
    return f"{_FETCH}hdfs dfs -get {place} .", f"{_SEND}hdfs dfs -put FOLDER {place}"


def _s3(uri: str) -> tuple[str, str]:
    return f"write s3://{_below(uri)}", f"write s3://{_below(uri)}"


def _unknown(_uri: str) -> tuple[str, str]:
    return "copy the files to this machine, and name the copies", f"{_SEND}with the tool of that store"


_ADVICE: dict[str, Callable[[str], tuple[str, str]]] = {
    **dict.fromkeys(("http", "https", "ftp", "ftps"), _web),
    "hf": _hub,
    **dict.fromkeys(("gs", "gcs"), _google),
    **dict.fromkeys(("az", "azure", *_LAKES), _azure),
    **dict.fromkeys(("sftp", "ssh", "scp"), _ssh),
    "hdfs": _hadoop,
    **dict.fromkeys(("s3", "s3a", "s3n"), _s3),
}
