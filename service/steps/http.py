"""The step that makes one HTTP request, to the global internet unless the operator has allowed more."""

import asyncio
import time
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import aiohttp
from aiohttp import ClientResponse, ClientSession, DummyCookieJar
from msgspec import Struct
from msgspec.structs import replace
from yarl import URL

from service.domain.events import Error
from service.errors import Fault
from service.steps import Attempt, Outcome
from service.steps.addresses import RefusedAddress, parse_allowed, socket_factory
from service.steps.config import Config
from service.steps.documents import Document, bad_config, decode_body, failed, recorded
from service.steps.framing import BoundedConnector
from service.steps.names import Names
from service.steps.request import Request, display, parse_url, read_request

BODY_BYTES_MAX = 4 * 1024 * 1024  # of a response, decompressed
TIMEOUT_MS = 120_000  # of the whole request, redirects included, where neither config nor step says
REDIRECTS_MAX = 10
USER_AGENT = "tailrace"
# Everything else may carry a secret that was meant for the first host only.
_FOR_ANY_HOST = ("accept", "accept-language", "content-type", "idempotency-key", "user-agent")


class Answer(Struct, frozen=True):
    """A response that was read to its end."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    charset: str
    url: URL


class Failed(Exception):
    """The request led to no answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Http:
    """``{url | path, baseUrl?, method?, headers?, query?, json? | body?, timeout?, expectStatus?}``."""

    type = "http"
    holds_slot = True

    def __init__(self, *, http_allow: tuple[str, ...], body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self._allowed = parse_allowed(http_allow)
        self._body_bytes_max = body_bytes_max
        self._names = Names()
        self._guarded: ClientSession | None = None  # to addresses that are permitted
        self._open: ClientSession | None = None  # to hosts that are allowed by name, wherever they are

    def check(self, config: Mapping[str, Any], pointer: str) -> list[Fault]:
        """Return every fault of an unrendered config."""
        reading = Config(config, pointer, templates=True)
        read_request(reading)
        return reading.faults

    def repeatable(self, config: Mapping[str, Any]) -> bool:
        """GET, HEAD and OPTIONS change nothing."""
        return str(config.get("method") or "GET").upper() in {"GET", "HEAD", "OPTIONS"}

    async def run(self, attempt: Attempt) -> Outcome:
        """Make the request, follow its redirects and return what came back."""
        reading = Config(attempt.config)
        request = read_request(reading)
        if reading.faults:
            return bad_config(reading.faults)
        request.headers.setdefault("idempotency-key", attempt.idempotency_key)
        request.headers.setdefault("user-agent", USER_AGENT)
        if "traceparent" not in request.headers:  # one of the step's own stands for itself
            request.headers.update({**attempt.trace, **request.headers})
        started = time.monotonic()
        timeout_ms = request.timeout_ms or attempt.timeout_ms or TIMEOUT_MS
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                answer = await self._follow(request)
        except TimeoutError:
            error = Error("timeout", f"{_label(request)} had no complete answer after {timeout_ms} ms.")
            return Outcome("timeout", {}, error=error)
        except Failed as error:
            return failed(error.code, f"{_label(request)}: {error}")
        took_ms = round((time.monotonic() - started) * 1000)
        line = f"{_label(request)} → {answer.status} ({took_ms} ms, {len(answer.body):,} bytes)"
        await attempt.emit("info", [line])
        return _outcome(request, answer)

    async def close(self) -> None:
        """Close the connections that are kept for reuse."""
        sessions = (self._guarded, self._open)
        self._guarded = self._open = None
        for session in sessions:
            if session is not None:
                await session.close()

    async def _follow(self, request: Request) -> Answer:
        for _ in range(REDIRECTS_MAX + 1):
            answer, location = await self._send(request)
            if location is None:
                return answer
            request = _redirected(request, answer, location)
        raise Failed("too_many_redirects", f"there were more than {REDIRECTS_MAX} redirects")

    async def _send(self, request: Request) -> tuple[Answer, str | None]:
        try:
            async with self._session(request.url).request(
                request.method,
                request.url,
                headers=request.headers,
                data=None if request.body is None else BytesIO(request.body),
                allow_redirects=False,
            ) as response:
                location = _location(response, request)
                body = b"" if location is not None else await self._body(response)
                return _answer(response, body), location
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure(error) from error

    async def _body(self, response: ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._body_bytes_max:
                raise Failed("body_too_large", f"the body is over {self._body_bytes_max} bytes")
        return bytes(body)

    def _session(self, url: URL) -> ClientSession:
        if (url.raw_host or "").lower().rstrip(".") in self._allowed.hosts:
            self._open = self._open or _new_session(resolver=self._names)
            return self._open
        if self._guarded is None:
            self._guarded = _new_session(resolver=self._names, socket_factory=socket_factory(self._allowed))
        return self._guarded


def _new_session(**options: Any) -> ClientSession:
    return ClientSession(
        # Its cache would go on with a lookup that nobody awaits; the resolver has its own.
        connector=BoundedConnector(limit=0, use_dns_cache=False, **options),
        cookie_jar=DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        trust_env=False,
    )


def _location(response: ClientResponse, request: Request) -> str | None:
    """Return where a redirect leads; None for any other answer, or one that was expected."""
    location = response.headers.get("Location")
    if not location or response.status not in {301, 302, 303, 307, 308}:
        return None
    asked_for = request.expect_status and _expected(response.status, request.expect_status)
    return None if asked_for else _clean(location)


def _clean(header: str) -> str:
    """Return a header's text with its undecodable bytes replaced: aiohttp leaves them as surrogates."""
    return header.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _answer(response: ClientResponse, body: bytes) -> Answer:
    headers: dict[str, str] = {}
    for name, raw in response.headers.items():
        key, value = name.lower(), _clean(raw)
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    charset = response.charset or "utf-8"
    return Answer(response.status, _clean(response.reason or ""), headers, body, charset, response.url)


def _redirected(request: Request, answer: Answer, location: str) -> Request:
    """Return the request that a redirect leads to, changed as browsers change it."""
    try:
        url = parse_url(location, base=request.url).with_user(None)
    except ValueError as error:
        raise Failed("bad_url", f"the redirect's address {error}") from None
    headers, method, body = dict(request.headers), request.method, request.body
    if (answer.status in {301, 302} and method == "POST") or (answer.status == 303 and method != "HEAD"):
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if not name.startswith("content-")}
    if url.origin() != request.url.origin():
        headers = {name: value for name, value in headers.items() if name in _FOR_ANY_HOST}
    return replace(request, url=url, method=method, body=body, headers=headers)


def _failure(error: Exception) -> Failed:  # noqa: PLR0911  one line per kind of error is the table
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return Failed("tls", "the TLS connection could not be made: " + _reason(error))
        case aiohttp.ClientConnectorError(os_error=RefusedAddress()):
            return Failed("refused_address", "the address is not in the global internet and not allowed")
        case aiohttp.ClientConnectorDNSError():
            return Failed("connect", "the host's name cannot be resolved")
        case aiohttp.ClientConnectorError():
            return Failed("connect", "no connection: " + _reason(error.os_error))
        case aiohttp.InvalidURL() | ValueError():
            return Failed("bad_url", "the address is not one that can be asked")
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return Failed("bad_response", "the answer is not complete, or not HTTP")
        case _:
            return Failed("connection_lost", "the connection ended before the answer was complete")


def _reason(error: Exception) -> str:
    inner = getattr(error, "os_error", error)
    return getattr(inner, "strerror", None) or type(inner).__name__


def _outcome(request: Request, answer: Answer) -> Outcome:
    body = decode_body(answer.body, answer.charset)
    head = {"status": answer.status, "headers": answer.headers}
    own: Document = body if isinstance(body, dict) else {}
    document = own | {"response": head | {"body": body}}
    small = recorded(document, lambda: own | {"response": head}, lambda: {"response": head})
    if _expected(answer.status, request.expect_status):
        return Outcome("success", document, small)
    message = f"{_label(request)} was answered with {answer.status} {answer.reason}".rstrip() + "."
    return Outcome("failed", document, small, Error("http_status", message))


def _expected(status: int, expected: tuple[str, ...]) -> bool:
    if not expected:
        return status < 400
    return str(status) in expected or f"{status // 100}xx" in expected


def _label(request: Request) -> str:
    return f"{request.method} {display(request.url)}"
