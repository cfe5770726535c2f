"""Streams: cut off when they break, closed when the client goes, bounded when it is slow."""

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

from tests.gateway.system import Server, body, eventually, running

STREAM = "/api/datasets/stream"


def raw_stream(server: Server, text: str, version: str = "1.1", *, window: int = 0) -> socket.socket:
    """A stream request on a bare socket, whose receive buffer may be small."""
    content = json.dumps(body(text, top_k=10_000_000)).encode()
    found = socket.socket()
    if window:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    found.settimeout(20)
    found.connect(("127.0.0.1", server.port))
    head = f"POST {STREAM} HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    found.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return found


def test_a_source_that_breaks_in_the_middle_cuts_the_body(gateway: Server) -> None:
    own = {"X-Request-ID": "broken-in-the-middle"}
    answer = requests.post(gateway.url + STREAM, json=body("broken"), headers=own, stream=True, timeout=20)
    assert answer.status_code == 200
    assert answer.headers["X-Request-ID"] == "broken-in-the-middle"
    lines: list[bytes] = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        lines.extend(answer.iter_lines())
    assert lines
    # All that came is data: no line tells of the error.
    assert all("document_id" in json.loads(line) for line in lines[:-1])
    gateway.until_logged(
        'the stream was cut off: the test\'s database went away.*"request_id": "broken-in-the-middle"'
    )
    assert '"outcome":"aborted"' in gateway.audit()


def test_a_bare_client_sees_the_missing_last_chunk(gateway: Server) -> None:
    with raw_stream(gateway, "broken") as client:
        received = b""
        while chunk := client.recv(1 << 16):
            received += chunk
    assert b"200 OK" in received
    assert not received.endswith(b"0\r\n\r\n")


def test_a_source_that_is_away_is_told_before_anything_else(gateway: Server) -> None:
    answer = requests.post(gateway.url + STREAM, json=body("away"), timeout=20)
    assert answer.status_code == 503
    assert "the test's database is away; start it" in answer.json()["detail"]
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize("text", ["endless", "silent", "slow"])
def test_a_client_that_goes_away_closes_the_source(gateway: Server, text: str) -> None:
    closed = gateway.text().count("source closed")
    opened = gateway.text().count("source opened")
    client = raw_stream(gateway, text)
    eventually(lambda: gateway.text().count("source opened") > opened)
    client.close()
    eventually(lambda: gateway.text().count("source closed") > closed)
    eventually(lambda: '"outcome":"client_gone"' in gateway.audit())


def test_the_first_line_does_not_wait_for_the_others(gateway: Server) -> None:
    answer = requests.post(gateway.url + STREAM, json=body("slow"), stream=True, timeout=20)
    first = next(answer.iter_lines(chunk_size=1))
    assert json.loads(first)["document_id"]
    # The source is in the middle of its batches, and has given next to nothing yet.
    answer.close()
    eventually(lambda: "source closed after 20 documents" in gateway.text() or "after 40" in gateway.text())


def test_a_slow_reader_slows_the_source_and_takes_no_memory(gateway: Server) -> None:
    process = psutil.Process(gateway.popen.pid)
    with raw_stream(gateway, "endless", window=4096) as client:
        client.recv(1024)
        eventually(lambda: settled(process))
        before = process.memory_info().rss
        # It is blocked: neither time nor memory is spent while nobody reads.
        assert settled(process)
        assert process.memory_info().rss - before < 8 << 20
    gateway.until_logged("source closed after")


def settled(process: psutil.Process) -> bool:
    """Whether a process rests for a moment."""
    before = sum(process.cpu_times()[:2])
    time.sleep(0.3)
    return sum(process.cpu_times()[:2]) - before < 0.1


def test_a_stream_of_any_length_takes_no_memory(gateway: Server) -> None:
    process = psutil.Process(gateway.popen.pid)
    peaks = []
    for lines in (20_000, 60_000):
        answer = requests.post(
            gateway.url + STREAM,
            json=body("endless", top_k=lines, min_quality_score=0),
            stream=True,
            timeout=60,
        )
        count, peak = 0, 0
        for piece in answer.iter_content(1 << 20):
            count += piece.count(b"\n")
            peak = max(peak, process.memory_info().rss)
        assert count == lines
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 16 << 20


def test_streams_and_requests_are_counted(gateway: Server) -> None:
    port = gateway.until_logged(r"/readyz on port (\d+)")[1]
    requests.post(gateway.url + STREAM, json=body(top_k=100), timeout=20).raise_for_status()
    metrics = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    assert re.search(r'shardline_gateway_streams_total\{outcome="complete"\} [1-9]', metrics)
    assert re.search(r'shardline_gateway_requests_total\{status="200"\} [1-9]', metrics)
    assert re.search(r"shardline_gateway_rows_total [1-9]", metrics)
    assert requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).json()["ready"]


def test_http_1_0_is_refused(gateway: Server) -> None:
    with raw_stream(gateway, "Satzung", "1.0") as client:
        received = b""
        while chunk := client.recv(1 << 16):
            received += chunk
    assert received.startswith(b"HTTP/1.1 426")


def test_a_body_of_a_gigabyte_is_refused_early(gateway: Server) -> None:
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    client.putrequest("POST", STREAM)
    client.putheader("Content-Type", "application/json")
    client.putheader("Content-Length", str(1 << 30))
    client.endheaders()
    # Nothing of the body was sent: the length alone decides.
    answer = client.getresponse()
    assert answer.status == 413
    assert answer.getheader("Content-Type") == "application/problem+json"
    assert "more than 1048576 bytes" in json.loads(answer.read())["detail"]


def test_a_body_that_hides_its_length_is_refused_at_the_limit(gateway: Server) -> None:
    sent = 0

    def gigabyte() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1 << 14):
            sent += 1 << 16
            yield b" " * (1 << 16)

    try:
        answer = requests.post(
            gateway.url + STREAM, data=gigabyte(), headers={"Content-Type": "application/json"}, timeout=20
        )
        assert answer.status_code == 413
    except requests.ConnectionError:
        # The gateway had answered and hung up while the client was still sending.
        pass
    assert sent < 64 << 20
    assert requests.get(f"{gateway.url}/health", timeout=5).status_code == 200


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 100_000, b'{"name": "\xff"}', b'{"name": "\\ud800abc"}', b"1e999"]
)
def test_a_body_that_is_no_json_is_refused(gateway: Server, content: bytes) -> None:
    answer = requests.post(
        gateway.url + STREAM, data=content, headers={"Content-Type": "application/json"}, timeout=10
    )
    assert answer.status_code in (400, 422)
    assert "Traceback" not in answer.text


def test_streams_of_one_user_are_counted(tmp_path: Path) -> None:
    with running(tmp_path, GATEWAY_STREAMS_PER_USER="2", GATEWAY_STALL_SECONDS="1") as server:
        held = [raw_stream(server, "silent") for _ in range(2)]
        eventually(lambda: server.text().count("source opened") == 2)
        refused = requests.post(server.url + STREAM, json=body(), timeout=10)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        held[0].close()
        eventually(lambda: "source closed" in server.text())
        assert requests.post(server.url + STREAM, json=body(), timeout=20).status_code == 200
        held[1].close()
        # A reader that takes nothing is cut off, and its source closed.
        with raw_stream(server, "endless", window=4096):
            server.until_logged("the client took nothing for 1 s")
            eventually(lambda: '"outcome":"stalled"' in server.audit())


def test_requests_of_one_user_are_counted(tmp_path: Path) -> None:
    with running(tmp_path, GATEWAY_REQUESTS_PER_MINUTE="3", STREAMING_ENABLED="false") as server:
        off = requests.post(server.url + STREAM, json=body(), timeout=10)
        assert off.status_code == 503
        assert "STREAMING_ENABLED" in off.json()["detail"]
        codes = [requests.get(f"{server.url}/api/datasets", timeout=5).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        assert requests.get(f"{server.url}/health", timeout=5).status_code == 200


def test_uds3_may_be_missing(tmp_path: Path) -> None:
    with running(tmp_path, TEST_AWAY="1") as server:
        assert requests.get(f"{server.url}/health", timeout=5).json()["uds3_available"] is False
        answer = requests.post(server.url + STREAM, json=body(), timeout=10)
        assert answer.status_code == 503
        assert "UDS3 is not available" in answer.json()["detail"]


def test_a_stop_cuts_streams_and_ends_the_process(tmp_path: Path) -> None:
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
