"""What an http step's config asks for, checked; nothing here touches the network."""

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from yarl import URL

from service.domain.expressions import as_text
from service.domain.fields import child, quoted
from service.errors import Fault
from service.steps.config import Config

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
URL_CHARS_MAX = 16 * 1024
HEADER_BYTES_MAX = 16 * 1024  # of one header's value
_KEYS = ("url", "path", "baseUrl", "method", "headers", "query", "json", "body", "timeout", "expectStatus")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# http://api.example.org{{x}}: what is inserted could go on with the host's name, or make it a user's name.
_OPEN_HOST = re.compile(r"https?://[^/?#{]+\{\{", re.IGNORECASE)
_FRAMING = ("connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade")


class Request(Struct, frozen=True):
    """A request, ready to be sent."""

    method: str
    url: URL
    headers: dict[str, str]
    body: bytes | None
    timeout_ms: int | None
    expect_status: tuple[str, ...]


def read_request(reading: Config) -> Request:
    """Return the request; what is wrong with it is in ``reading.faults``, and then it must not be sent."""
    method = (reading.text("method", chars_max=16) or "GET").upper()
    if method not in METHODS:
        reading.fault("method", f"must be one of {', '.join(METHODS)}")
    url = _url(reading)
    headers = _headers(reading)
    if url.user is not None:
        credentials = b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
        headers.setdefault("authorization", f"Basic {credentials}")
    body = _body(reading, headers)
    query = _query(reading)
    reading.refuse_unknown(_KEYS)
    return Request(
        method=method,
        url=(url.extend_query(query) if query else url).with_user(None) if url.host else url,
        headers=headers,
        body=body,
        timeout_ms=reading.duration("timeout", least_ms=1),
        expect_status=reading.codes("expectStatus", least=100, most=599, classes=True),
    )


def parse_url(text: str, base: URL | None = None) -> URL:
    """Return an http or https URL, relative to ``base`` if given. Raises ValueError."""
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in text) or "\\" in text:
        raise ValueError("must not hold spaces, control characters or backslashes")
    try:
        url = URL(text) if base is None else base.join(URL(text))
        port = url.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if url.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if not url.host or port == 0:
        raise ValueError("must name a host")
    return url.with_fragment(None)


def display(url: URL) -> str:
    """Return a URL as it may be shown: without its query, where secrets travel."""
    return str(url.with_query(None))


def _url(reading: Config) -> URL:
    key = reading.one_of("url", "path")
    for name in {key, "baseUrl"} & reading.config.keys():
        if reading.templates and _OPEN_HOST.match(str(reading.config[name]).strip()):
            reading.fault(name, "end the host with / before a template, or make all of the address one")
    text = reading.text(key, chars_max=URL_CHARS_MAX)
    base = reading.text("baseUrl", chars_max=URL_CHARS_MAX)
    if text is not None:
        text = text.strip()
    if base is not None:
        _parse(reading, "baseUrl", base)
        if "?" in base or "#" in base:
            reading.fault("baseUrl", "must not have a query or a fragment")
    if text is None or (reading.has("baseUrl") and base is None):
        return URL()
    if base is not None and (key == "path" or not re.match(r"https?://", text, re.IGNORECASE)):
        # Joined as text: whatever a path holds, it cannot lead to another host.
        text = f"{base.rstrip('/')}/{text.lstrip('/')}"
    elif reading.templates and key == "path" and not reading.has("baseUrl") and text.startswith("/"):
        reading.fault("path", "needs a baseUrl, or must be a whole URL")
        return URL()
    return _parse(reading, key, text)


def _parse(reading: Config, key: str, text: str) -> URL:
    try:
        return parse_url(text)
    except ValueError as error:
        reading.fault(key, str(error))
        return URL()


def _headers(reading: Config) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in reading.texts("headers").items():
        fault = _header_fault(name, value)
        if fault is not None:
            reading.faults.append(Fault(child(reading.at("headers"), name), fault))
        headers[name.lower()] = value.strip()
    return headers


def _header_fault(name: str, value: str) -> str | None:
    if not _TOKEN.fullmatch(name):
        return "is not a header's name"
    if name.lower() in _FRAMING:
        return f"{quoted(name)} is set by the client itself"
    if any(char in value for char in "\r\n\0"):
        return "must not hold line ends or NUL"
    if len(value.encode("utf-8", "replace")) > HEADER_BYTES_MAX:
        return f"must be at most {HEADER_BYTES_MAX} bytes"
    return None


def _body(reading: Config, headers: dict[str, str]) -> bytes | None:
    if reading.has("json") and reading.has("body"):
        reading.fault("body", "cannot be given together with json")
    json = reading.raw.get("json")
    if json is not None:
        headers.setdefault("content-type", "application/json")
        return msgspec.json.encode(json)
    body = reading.raw.get("body")
    if body is None:
        return None
    kind = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
    headers.setdefault("content-type", kind)
    return as_text(body).encode()


def _query(reading: Config) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in reading.object("query").items():
        values: list[Any] = value if isinstance(value, list) else [value]
        if any(isinstance(item, Mapping | list) for item in values):
            reading.faults.append(
                Fault(
                    child(reading.at("query"), name),
                    "must be a text, a number, true, false, or a list of them",
                )
            )
        pairs += [(name, as_text(item)) for item in values if item is not None]
    return pairs
