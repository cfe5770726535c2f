"""Streams: cut off when the source fails, closed when the client disconnects, bounded when it is slow."""

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.gateway.system import SECONDS, Server, body, eventually, running

STREAM = "/api/datasets/stream"


def raw_stream(
    server: Server, text: str, version: str = "1.1", *, own: str = "raw", window: int = 0
) -> socket.socket:
    """Send a stream request with this request id on a bare socket. `window` is its receive buffer."""
    content = json.dumps(body(text, top_k=10_000_000)).encode()
    found = socket.socket()
    if window:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    found.settimeout(SECONDS)
    found.connect(("127.0.0.1", server.port))
    head = f"POST {STREAM} HTTP/{version}\r\nHost: localhost\r\nX-Request-ID: {own}\r\n"
    head += "Content-Type: application/json\r\n"
    found.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return found


def logged(server: Server, own: str, event: str) -> int:
    """Count the log lines of a request that have this text."""
    return sum(event in line for line in server.lines(own))


def test_a_source_that_breaks_in_the_middle_cuts_the_body(gateway: Server) -> None:
    own = {"X-Request-ID": "broken-in-the-middle"}
    response = requests.post(
        gateway.url + STREAM, json=body("broken"), headers=own, stream=True, timeout=SECONDS
    )
    assert response.status_code == 200
    assert response.headers["X-Request-ID"] == "broken-in-the-middle"
    lines: list[bytes] = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        lines.extend(response.iter_lines())
    assert lines
    # Each line is a row: none reports the error.
    assert all("document_id" in json.loads(line) for line in lines[:-1])
    gateway.until_logged(
        'the stream was aborted: the test\'s database went away.*"request_id": "broken-in-the-middle"'
    )
    eventually(lambda: gateway.audited("broken-in-the-middle", "aborted"))


def test_a_broken_stream_has_no_last_chunk(gateway: Server) -> None:
    with raw_stream(gateway, "broken") as client:
        received = b""
        while chunk := client.recv(1 << 16):
            received += chunk
    assert b"200 OK" in received
    assert not received.endswith(b"0\r\n\r\n")


def test_an_unreachable_source_is_a_503_before_any_row(gateway: Server) -> None:
    response = requests.post(gateway.url + STREAM, json=body("away"), timeout=SECONDS)
    assert response.status_code == 503
    assert "the test's database is away; start it" in response.json()["detail"]
    assert response.headers["Retry-After"]


@pytest.mark.parametrize("text", ["endless", "silent", "slow"])
def test_a_client_that_goes_away_closes_the_source(gateway: Server, text: str) -> None:
    own = f"gone-{text}"
    client = raw_stream(gateway, text, own=own)
    eventually(lambda: logged(gateway, own, "source opened") == 1)
    client.close()
    eventually(lambda: logged(gateway, own, "source closed") == 1)
    eventually(lambda: gateway.audited(own, "client_gone"))


def test_the_first_row_is_sent_at_once(gateway: Server) -> None:
    # `held` yields no further batch.
    response = requests.post(gateway.url + STREAM, json=body("held"), stream=True, timeout=SECONDS)
    first = next(response.iter_lines(chunk_size=1))
    assert json.loads(first)["document_id"]
    response.close()
    own = response.headers["X-Request-ID"]
    eventually(lambda: logged(gateway, own, "source closed after 20 documents") == 1)
    assert logged(gateway, own, "source closed") == 1


def test_a_slow_reader_slows_the_source_and_takes_no_memory(gateway: Server) -> None:
    process = psutil.Process(gateway.popen.pid)
    with raw_stream(gateway, "endless", own="slow-reader", window=4096) as client:
        client.recv(1024)
        eventually(lambda: settled(process))
        before = process.memory_info().rss
        # The source is blocked: it uses neither CPU nor memory while the client does not read.
        assert settled(process)
        assert process.memory_info().rss - before < 8 << 20
    eventually(lambda: logged(gateway, "slow-reader", "source closed after") == 1)


def settled(process: psutil.Process) -> bool:
    """Whether a process uses less than a third of a core, over the 0.3 s or more that the test sleeps."""
    began, before = time.monotonic(), sum(process.cpu_times()[:2])
    time.sleep(0.3)
    spent = sum(process.cpu_times()[:2]) - before
    return spent / (time.monotonic() - began) < 0.33


def test_memory_does_not_grow_with_the_length_of_a_stream(gateway: Server) -> None:
    # The process keeps the memory of its first stream: that is not the stream's length.
    peak(gateway, 20_000)
    short = peak(gateway, 20_000)
    assert peak(gateway, 60_000) - short < 16 << 20


def peak(server: Server, lines: int) -> int:
    """Return the peak of the server's memory, in bytes, while it streams so many lines."""
    process = psutil.Process(server.popen.pid)
    wanted = body("endless", top_k=lines, min_quality_score=0)
    response = requests.post(server.url + STREAM, json=wanted, stream=True, timeout=SECONDS)
    count, most = 0, 0
    for piece in response.iter_content(1 << 20):
        count += piece.count(b"\n")
        most = max(most, process.memory_info().rss)
    assert count == lines
    return most


def test_metrics_count_streams_and_requests(gateway: Server) -> None:
    port = gateway.until_logged(r"/readyz on port (\d+)")[1]
    requests.post(gateway.url + STREAM, json=body(top_k=100), timeout=SECONDS).raise_for_status()
    metrics = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=SECONDS).text
    assert re.search(r'shardline_gateway_streams_total\{outcome="complete"\} [1-9]', metrics)
    assert re.search(r'shardline_gateway_requests_total\{status="200"\} [1-9]', metrics)
    assert re.search(r"shardline_gateway_rows_total [1-9]", metrics)
    ready = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=SECONDS).json()
    assert ready == {"ready": True, "checks": {"jobs": "ok", "kafka": "ok"}}


def test_http_1_0_is_refused(gateway: Server) -> None:
    with raw_stream(gateway, "Satzung", "1.0") as client:
        received = b""
        while chunk := client.recv(1 << 16):
            received += chunk
    assert received.startswith(b"HTTP/1.1 426")


def test_a_body_of_a_gigabyte_is_refused_early(gateway: Server) -> None:
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=SECONDS)
    client.putrequest("POST", STREAM)
    client.putheader("Content-Type", "application/json")
    client.putheader("Content-Length", str(1 << 30))
    client.endheaders()
    # The declared length is enough: no byte of the body was sent.
    response = client.getresponse()
    assert response.status == 413
    assert response.getheader("Content-Type") == "application/problem+json"
    assert "more than 1048576 bytes" in json.loads(response.read())["detail"]


def test_a_body_without_a_length_is_refused_at_the_limit(gateway: Server) -> None:
    sent = 0

    def gigabyte() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1 << 14):
            sent += 1 << 16
            yield b" " * (1 << 16)

    try:
        response = requests.post(
            gateway.url + STREAM,
            data=gigabyte(),
            headers={"Content-Type": "application/json"},
            timeout=SECONDS,
        )
        assert response.status_code == 413
    except requests.ConnectionError:
        # The gateway answered and closed the connection while the client was still sending.
        pass
    assert sent < 64 << 20
    assert requests.get(f"{gateway.url}/health", timeout=SECONDS).status_code == 200


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 100_000, b'{"name": "\xff"}', b'{"name": "\\ud800abc"}', b"1e999"]
)
def test_a_body_that_is_no_json_is_refused(gateway: Server, content: bytes) -> None:
    response = requests.post(
        gateway.url + STREAM, data=content, headers={"Content-Type": "application/json"}, timeout=SECONDS
    )
    assert response.status_code in (400, 422)
    assert "Traceback" not in response.text


def test_streams_of_one_user_are_limited(tmp_path: Path) -> None:
    with running(tmp_path, GATEWAY_STREAMS_PER_USER="2") as server:
        held = [raw_stream(server, "silent", own=f"silent-{number}") for number in range(2)]
        eventually(lambda: server.text().count("source opened") == 2)
        refused = requests.post(server.url + STREAM, json=body(), timeout=SECONDS)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        held[0].close()
        eventually(lambda: server.audited("silent-0", "client_gone"))
        assert logged(server, "silent-0", "source closed") == 1
        assert requests.post(server.url + STREAM, json=body(), timeout=SECONDS).status_code == 200
        held[1].close()


def test_a_client_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    with (
        running(tmp_path, GATEWAY_STALL_SECONDS="1") as server,
        raw_stream(server, "endless", own="stalled", window=4096),
    ):
        server.until_logged("the client read nothing for 1 s")
        eventually(lambda: logged(server, "stalled", "source closed") == 1)
        eventually(lambda: server.audited("stalled", "stalled"))


def test_requests_of_one_user_are_limited(tmp_path: Path) -> None:
    with running(tmp_path, GATEWAY_REQUESTS_PER_MINUTE="3", STREAMING_ENABLED="false") as server:
        off = requests.post(server.url + STREAM, json=body(), timeout=SECONDS)
        assert off.status_code == 503
        assert "STREAMING_ENABLED" in off.json()["detail"]
        codes = [requests.get(f"{server.url}/api/datasets", timeout=SECONDS).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        assert requests.get(f"{server.url}/health", timeout=SECONDS).status_code == 200


def test_the_gateway_runs_without_uds3(tmp_path: Path) -> None:
    with running(tmp_path, TEST_AWAY="1") as server:
        assert requests.get(f"{server.url}/health", timeout=SECONDS).json()["uds3_available"] is False
        response = requests.post(server.url + STREAM, json=body(), timeout=SECONDS)
        assert response.status_code == 503
        assert "UDS3 is not available" in response.json()["detail"]


def test_a_stop_cuts_off_streams_and_ends_the_process(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        client = raw_stream(server, "endless")
        server.until_logged("source opened")
        assert server.stop() == 0
        received = b""
        while chunk := client.recv(1 << 20):
            received = received[-16:] + chunk
        client.close()
        assert not received.endswith(b"0\r\n\r\n")
        assert "source closed" in server.text()
