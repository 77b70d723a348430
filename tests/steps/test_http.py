"""What an http step sends, reads and hands on, against a real server."""

import tracemalloc
import zlib
from typing import Any

import msgspec
import pytest

from service.domain.events import VALUE_BYTES_MAX
from service.steps.http import BODY_BYTES_MAX, Http
from tests.steps.attempts import Said, attempt
from tests.steps.upstream import BOMB, Upstream


async def test_the_document_is_the_json_and_the_response(upstream: Upstream) -> None:
    said = Said()
    outcome = await upstream.run({"url": upstream.url("/echo?token=geheim"), "query": {"k": "geheim"}}, said)
    assert outcome.status == "success"
    assert outcome.document["method"] == "GET"
    response = outcome.document["response"]
    assert response["status"] == 200
    assert response["headers"]["content-type"].startswith("application/json")
    assert response["body"]["method"] == "GET"
    ((level, line),) = said.lines
    assert level == "info"
    assert line.startswith(f"GET {upstream.url('/echo')} → 200 (")
    assert "geheim" not in line


async def test_a_json_key_called_response_never_wins(upstream: Upstream) -> None:
    body = '{"response": "forged", "id": 1}'
    outcome = await upstream.run({"url": upstream.url("/json"), "body": body})
    assert outcome.document["response"]["status"] == 200
    assert outcome.document["response"]["body"]["response"] == "forged"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("[1, 2]", [1, 2]), ("7", 7), ('"x"', "x"), ("null", None), ("", ""), ("{broken", "{broken"), ("NaN", "NaN"),
        ("[" * 100_000, "[" * 100_000), ('"\\ud800"', '"\\ud800"'), ("1e999", "1e999"), ("{} {}", "{} {}"),
    ],
)  # fmt: skip
async def test_what_is_json_is_decoded_and_anything_else_is_text(
    upstream: Upstream, body: str, value: object
) -> None:
    outcome = await upstream.run({"url": upstream.url("/json"), "body": body})
    assert outcome.document["response"]["body"] == value
    assert set(outcome.document) == {"response"}


async def test_text_keeps_its_charset(upstream: Upstream) -> None:
    outcome = await upstream.run({"url": upstream.url("/latin")})
    assert outcome.document["response"]["body"] == "grün"


@pytest.mark.parametrize(
    ("charset", "body", "text"),
    [
        ("Shift_JIS", "日本".encode("shift_jis"), "日本"),
        ("utf-16", "grün".encode("utf-16"), "grün"),
        ("windows-1252", b"\x80\x81", "€\ufffd"),
        ("unicode_escape", b"\\ud800", "\\ud800"),
        ("punycode", b"a" * 100 + "ü".encode(), "a" * 100 + "ü"),
        ("idna", b"xn--a", "xn--a"),
        ("undefined", b"a", "a"),
        ("zip", b"a", "a"),
        ("no-such-charset", "ü".encode(), "ü"),
    ],
)
async def test_a_charset_is_one_that_the_web_has_or_utf_8(
    upstream: Upstream, charset: str, body: bytes, text: str
) -> None:
    query = {"charset": charset, "hex": body.hex()}
    outcome = await upstream.run({"url": upstream.url("/text"), "query": query})
    assert outcome.document["response"]["body"] == text


@pytest.mark.parametrize("levels", [1, 199, 200, 201, 50_000])
async def test_json_that_is_nested_too_deeply_is_text(upstream: Upstream, levels: int) -> None:
    for body in ("[" * levels + "]" * levels, '{"a":' * levels + '"[[["' + "}" * levels):
        outcome = await upstream.run({"url": upstream.url("/json"), "method": "POST", "body": body})
        got = outcome.document["response"]["body"]
        assert (got == body) if levels > 200 else isinstance(got, list | dict)
    wide = "[" + ",".join(["[[]]"] * 1_000) + "]"
    outcome = await upstream.run({"url": upstream.url("/json"), "method": "POST", "body": wide})
    assert len(outcome.document["response"]["body"]) == 1_000


@pytest.mark.parametrize(
    ("config", "body", "content_type"),
    [
        ({"json": {"a": [1, None, "ü"]}}, '{"a":[1,null,"ü"]}', "application/json"),
        ({"json": [1]}, "[1]", "application/json"),
        ({"body": "plain"}, "plain", "text/plain; charset=utf-8"),
        ({"body": {"a": 1}}, '{"a":1}', "application/json"),
        ({"body": "<x/>", "headers": {"Content-Type": "text/xml"}}, "<x/>", "text/xml"),
        ({}, "", None),
        ({"json": None}, "", None),
        ({"body": "x" * 2_000_000}, "x" * 2_000_000, "text/plain; charset=utf-8"),
    ],
)
async def test_what_is_sent(
    upstream: Upstream, config: dict[str, Any], body: str, content_type: str | None
) -> None:
    await upstream.run({"url": upstream.url("/echo"), "method": "post", **config})
    (request,) = upstream.seen
    assert request.method == "POST"
    assert upstream.bodies == [body.encode()]
    if content_type is not None:
        assert request.headers["content-type"] == content_type
    assert request.headers["idempotency-key"] == "run-1/step-1"
    assert "cookie" not in request.headers


async def test_headers_and_query_are_text_and_null_leaves_out(upstream: Upstream) -> None:
    await upstream.run(
        {
            "url": upstream.url("/echo?a=0"),
            "headers": {"X-N": 1, "X-B": True, "X-J": {"a": 1}, "X-Null": None, "idempotency-key": "mine"},
            "query": {"n": 1, "b": False, "list": ["x", 2, None], "none": None, "text": "a&b=c ü"},
        }
    )
    (request,) = upstream.seen
    assert {name: request.headers[name] for name in ("X-N", "X-B", "X-J")} == {
        "X-N": "1",
        "X-B": "true",
        "X-J": '{"a":1}',
    }
    assert "X-Null" not in request.headers
    assert request.headers.getall("Idempotency-Key") == ["mine"]
    assert list(request.query.items()) == [
        ("a", "0"), ("n", "1"), ("b", "false"), ("list", "x"), ("list", "2"), ("text", "a&b=c ü"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("/api", "/v1/x"),
        ("/api/", "v1/x"),
        ("/api", "//evil.example/x"),
        ("/api", "http://evil.example/"),
        ("", "@evil.example/"),
        ("", ".evil.example"),
    ],
)
async def test_a_path_never_leaves_its_base(upstream: Upstream, base: str, path: str) -> None:
    outcome = await upstream.run({"path": path, "baseUrl": upstream.url(base)})
    assert outcome.error is not None
    assert outcome.error.code == "http_status"
    (request,) = upstream.seen
    assert request.path.startswith(base)


async def test_credentials_in_the_url_become_a_header_and_are_never_shown(upstream: Upstream) -> None:
    said = Said()
    url = upstream.url("/echo").replace("//", "//me:geheim@")
    outcome = await upstream.run({"url": url}, said)
    assert outcome.document["headers"]["authorization"] == "Basic bWU6Z2VoZWlt"
    assert "geheim" not in str(said.lines)
    closed = Http(http_allow=())
    refused = await closed.run(attempt({"url": url}))
    await closed.close()
    assert refused.error is not None
    assert "geheim" not in refused.error.message


@pytest.mark.parametrize(
    ("status", "expect", "good"),
    [
        (200, None, True), (299, None, True), (304, None, True), (400, None, False), (404, None, False),
        (500, None, False), (404, 404, True), (404, [200, 404], True), (404, "4xx", True), (201, "2xx", True),
        (200, 201, False), (200, ["3xx", "201"], False), (503, "5XX", True),
    ],
)  # fmt: skip
async def test_the_status_decides(upstream: Upstream, status: int, expect: object, good: bool) -> None:
    config = {"url": upstream.url("/status"), "query": {"status": status}}
    outcome = await upstream.run(config if expect is None else {**config, "expectStatus": expect})
    assert outcome.status == ("success" if good else "failed")
    assert outcome.document["response"]["status"] == status
    if not good:
        assert outcome.error is not None
        assert outcome.error.code == "http_status"
        assert str(status) in outcome.error.message


async def test_a_body_over_the_cap_is_refused_whatever_packs_it(upstream: Upstream) -> None:
    at_cap = await upstream.run({"url": upstream.url("/bytes"), "query": {"n": BODY_BYTES_MAX}})
    assert at_cap.status == "success"
    over = await upstream.run({"url": upstream.url("/bytes"), "query": {"n": BODY_BYTES_MAX + 1}})
    assert over.error is not None
    assert over.error.code == "body_too_large"
    tracemalloc.start()
    try:
        bomb = await upstream.run({"url": upstream.url("/bomb"), "query": {"with": "gzip"}})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert bomb.error is not None
    assert bomb.error.code == "body_too_large"
    assert peak < 4 * BODY_BYTES_MAX, peak
    broken = await upstream.run({"url": upstream.url("/bomb"), "query": {"with": "deflate"}})
    assert broken.error is not None
    assert broken.error.code == "bad_response"


async def test_what_does_not_fit_into_an_event_is_recorded_without_its_body(upstream: Upstream) -> None:
    small = await upstream.run({"url": upstream.url("/bytes"), "query": {"n": 1000}})
    assert small.recorded is None
    large = await upstream.run({"url": upstream.url("/bytes"), "query": {"n": VALUE_BYTES_MAX}})
    assert len(large.document["response"]["body"]) == VALUE_BYTES_MAX
    assert large.recorded is not None
    assert set(large.recorded["response"]) == {"status", "headers"}
    assert len(msgspec.json.encode(large.recorded)) <= VALUE_BYTES_MAX


async def test_a_trickle_ends_at_the_timeout(upstream: Upstream) -> None:
    outcome = await upstream.run({"url": upstream.url("/trickle"), "timeout": 300})
    assert outcome.status == "timeout"
    assert outcome.error is not None
    assert outcome.error.code == "timeout"


def test_only_what_changes_nothing_may_be_repeated() -> None:
    http = Http(http_allow=())
    assert [
        http.repeatable({"url": "x", **more}) for more in ({}, {"method": "head"}, {"method": "GET"})
    ] == [True] * 3
    assert not any(http.repeatable({"url": "x", "method": method}) for method in ("POST", "put", "{{m}}", 7))


def test_the_bomb_is_one() -> None:
    assert len(BOMB) < 2 * 1024 * 1024
    assert len(zlib.decompressobj(31).decompress(BOMB, 50 * 1024 * 1024)) > BODY_BYTES_MAX * 10
