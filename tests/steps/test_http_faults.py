"""Redirects, and servers and networks that do not do what they should."""

import asyncio
import ssl
import subprocess
from pathlib import Path

import msgspec
import pytest

from service.steps.http import REDIRECTS_MAX, Http
from tests.steps.attempts import attempt
from tests.steps.upstream import Upstream


@pytest.mark.parametrize(
    ("status", "method", "after"),
    [
        (301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "PUT", "GET"), (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"), (307, "POST", "POST"), (308, "POST", "POST"), (302, "GET", "GET"), (301, "HEAD", "HEAD"),
    ],
)  # fmt: skip
async def test_redirects_change_the_method_as_browsers_do(
    upstream: Upstream, status: int, method: str, after: str
) -> None:
    query = {"status": status, "to": "/echo?x=1"}
    config = {
        "url": upstream.url("/first"),
        "query": query,
        "method": method,
        "headers": {"Authorization": "me"},
    }
    outcome = await upstream.run(config if method in ("GET", "HEAD") else {**config, "json": {"a": 1}})
    assert outcome.status == "success"
    assert [request.method for request in upstream.seen] == [method, after]
    assert upstream.bodies[1] == (b'{"a":1}' if after in ("POST", "PUT") else b"")
    assert upstream.seen[1].headers["authorization"] == "me"
    assert ("content-type" in upstream.seen[1].headers) == (after in ("POST", "PUT"))
    assert upstream.seen[1].headers["idempotency-key"] == "run-1/step-1"


async def test_another_host_gets_no_credentials(upstream: Upstream) -> None:
    outcome = await upstream.run(
        {
            "url": upstream.url("/first"),
            "query": {"status": 307, "to": upstream.url("/echo", other=True).replace("//", "//u:p@")},
            "headers": {"Authorization": "me", "Cookie": "a=1", "X-Api-Key": "k", "Accept": "text/x"},
        }
    )
    assert outcome.status == "success"
    there = upstream.seen[1].headers
    assert not {"authorization", "cookie", "x-api-key"} & {name.lower() for name in there}
    assert there["accept"] == "text/x"


async def test_redirects_have_an_end(upstream: Upstream) -> None:
    outcome = await upstream.run({"url": upstream.url("/loop")})
    assert outcome.error is not None
    assert outcome.error.code == "too_many_redirects"
    assert len(upstream.seen) == REDIRECTS_MAX + 1


@pytest.mark.parametrize("expected", [302, "3xx", ["2xx", 302]])
async def test_a_redirect_that_is_expected_is_the_answer(upstream: Upstream, expected: object) -> None:
    config = {
        "url": upstream.url("/first"),
        "query": {"status": 302, "to": "/echo"},
        "expectStatus": expected,
    }
    outcome = await upstream.run(config)
    assert outcome.status == "success"
    assert outcome.document["response"]["status"] == 302
    assert outcome.document["response"]["headers"]["location"] == "/echo"
    followed = await upstream.run({**config, "expectStatus": [200, 307]})
    assert followed.document["response"]["status"] == 200


async def test_an_empty_location_is_no_redirect(upstream: Upstream) -> None:
    outcome = await upstream.run({"url": upstream.url("/first"), "query": {"status": 302, "to": ""}})
    assert outcome.document["response"]["status"] == 302


async def test_a_cancelled_request_leaves_no_connection(upstream: Upstream) -> None:
    running = asyncio.create_task(upstream.run({"url": upstream.url("/trickle")}))
    async with asyncio.timeout(10):
        while not upstream.seen:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        transport = upstream.seen[0].transport
        while transport is not None and not transport.is_closing():
            await asyncio.sleep(0.01)


async def test_no_cookie_is_kept(upstream: Upstream) -> None:
    for _ in range(2):
        await upstream.run({"url": upstream.url("/cookie")})
    assert "cookie" not in upstream.seen[1].headers


async def test_a_proxy_of_the_environment_is_not_used(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await upstream.run({"url": upstream.url("/echo")})).status == "success"


RAW_ANSWERS = [
    (b"", "connection_lost"),
    (b"nonsense\r\n\r\n", "bad_response"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", "bad_response"),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "bad_response"),
    (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", "bad_response"),
    (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5_000 + b"\r\n", "bad_response"),
    (b"HTTP/1.1 302 Found\r\nlocation: http://\x00/\r\ncontent-length: 0\r\n\r\n", "bad_response"),
    (b"HTTP/1.1 302 Found\r\nlocation: javascript:alert(1)\r\ncontent-length: 0\r\n\r\n", "bad_url"),
    (b"HTTP/1.1 200 \xff\xfe\r\nx-\xe4: \xff\r\ncontent-length: 2\r\n\r\nok", None),
    (b"HTTP/1.1 200 OK\r\nx: gr\xfcn\r\ncontent-length: 2\r\n\r\nok", None),
]


@pytest.mark.parametrize(("answer", "code"), RAW_ANSWERS)
async def test_an_answer_that_is_none_fails_the_step(answer: bytes, code: str | None) -> None:
    async def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(came, "127.0.0.1", 0)
    http = Http(http_allow=("127.0.0.1",))
    outcome = await http.run(
        attempt({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "timeout": "5s"})
    )
    await http.close()
    server.close()
    await server.wait_closed()
    if code is None:
        msgspec.json.encode(outcome.document)
        assert outcome.status == "success" or outcome.error is not None
    else:
        assert outcome.error is not None, outcome
        assert outcome.error.code == code, outcome.error


async def test_nobody_listening_and_no_such_name() -> None:
    http = Http(http_allow=("127.0.0.1",))
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    for url in (f"http://127.0.0.1:{port}/", "http://no-such-host.invalid/"):
        outcome = await http.run(attempt({"url": url, "timeout": "10s"}))
        assert outcome.error is not None
        assert outcome.error.code == "connect", outcome.error
    await http.close()


async def test_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    http = Http(http_allow=("127.0.0.1",))
    outcome = await http.run(attempt({"url": f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"}))
    await http.close()
    server.close()
    await server.wait_closed()
    assert outcome.error is not None
    assert outcome.error.code == "tls"
