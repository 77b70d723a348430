"""What ``tailrace doctor`` learns by asking: the service itself, and the proxy in front of it."""

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import version
from secrets import token_hex
from typing import TYPE_CHECKING, NamedTuple

from service.client.errors import Refused, Unreachable
from service.client.http import Address, answer_head, head_of, request, understood, why
from service.ops.doctor import Finding, fail, ok, warn
from service.ops.settings import is_loopback

if TYPE_CHECKING:
    from service.ops.settings import Settings

TIMEOUT_S = 5.0
LOOKS = 10
OUT_OF_DATE = {9, 10}  # OpenSSL: not yet valid, expired
MADE_UP = "203.0.113.7"  # of nobody (RFC 5737)
PASSWORD = "TAILRACE_PROXY_PASSWORD"  # noqa: S105  where it is to be found: a command line is there for all to see
# A run that nobody has: who gets through is accepted as a WebSocket, and then told so.
STREAM = "/api/v2/workflows/runs/doctor/stream?errors=close"


async def of_service(address: Address) -> tuple[list[Finding], datetime | None]:
    """Ask the service how it is; return what is to be said of it, and the time of its newest run."""
    findings: list[Finding] = []
    try:
        try:
            health = await _health(address)
        except Unreachable as error:
            if not isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise
            findings.append(_certificate(address, error.__cause__))
            # Asked all the same: one that hangs has a certificate, too. No key of anybody is sent.
            address.tls = ssl._create_unverified_context()  # noqa: S323, SLF001
            health = await _health(address)
    except (Refused, Unreachable, ValueError, TimeoutError) as error:
        said = str(error) or f"nothing for {TIMEOUT_S:g} s"
        remedy = "its diagnostics (stderr, the journal) say more; if it hangs, end it: nothing is lost"
        return [*findings, fail("service", f"it has the log, but does not answer: {said}", remedy)], None
    findings.append(ok("service", f"version {health['version']} answers at {address.url}"))
    if health["version"] != version("tailrace"):
        said = f"it is version {health['version']}, this command is {version('tailrace')}"
        findings.append(warn("service", said, "restart the service, or run the tailrace that it runs from"))
    try:
        await request(address, "GET", "/ready")
    except (Refused, Unreachable) as error:
        findings.append(fail("service", str(error), "mend what it names; it goes on by itself"))
    else:
        findings.append(ok("service", "it accepts runs, and its lists are up to date"))
    return findings, await _newest(address)


async def _health(address: Address) -> dict[str, str]:
    async with asyncio.timeout(TIMEOUT_S):
        answer = await request(address, "GET", "/health")
    with understood(address):
        return {"version": str(json.loads(answer)["version"])}


def _certificate(address: Address, error: ssl.SSLCertVerificationError) -> Finding:
    if error.verify_code in OUT_OF_DATE:
        return fail(
            "service", f"its certificate: {error.verify_message}", "renew it, and start the service anew"
        )
    # By itself no fault: a certificate is for the name that clients call, and we ask by an address.
    said = f"its certificate does not hold for {address.authority}: {error.verify_message}"
    return warn("service", said, "--url https://NAME, as clients call it, shows whether it holds there")


async def _newest(address: Address) -> datetime | None:
    try:
        page = json.loads(await request(address, "GET", address.target("/workflows/runs", {"limit": 1})))
        return datetime.fromisoformat(page["data"][0]["startTime"])
    except (Refused, Unreachable, ValueError, LookupError):
        return None  # no run yet, or not for us to see


async def of_proxy(
    address: Address, settings: "Settings", *, password: str | None = None, key: str | None = None
) -> list[Finding]:
    """Ask as clients do, through whatever is in front of the service.

    ``password``: NAME:PASSWORD for a proxy that asks for one (RFC 7617). ``key``: of the service.
    """
    if password:
        address.headers["Authorization"] = f"Basic {b64encode(password.encode()).decode()}"
    try:
        answer = await _answer(address, head_of(address, "GET", "/health"))
    except ssl.SSLError as error:
        return [fail("proxy", f"{address.url}: {error}", "renew the certificate, or name its authority")]
    except (OSError, EOFError, ValueError) as error:
        remedy = "look whether it runs, its name resolves, and no firewall is between"
        return [fail("proxy", f"{address.url} does not answer: {why(error)}", remedy)]
    findings = [_who_answers(address, answer), *_headers(address, settings)]
    if answer.status == 200:
        findings.append(await _upgrade(address))
        findings += await _forwarded(address, settings, key)
    return findings


class _Answer(NamedTuple):
    status: int
    headers: dict[str, str]


def _who_answers(address: Address, answer: _Answer) -> Finding:
    ours = "x-request-id" in answer.headers
    if answer.status == 421 and ours:
        said = f"the service does not know the name {address.authority}, or the proxy does not hand Host on"
        return fail("proxy", said, f"TAILRACE_HOSTS={address.authority}, and Host as the client sent it")
    if answer.status in {401, 403}:
        remedy = f"{PASSWORD}=NAME:PASSWORD in the environment: then what is behind it is looked at, too"
        return warn("proxy", f"it asks for credentials ({answer.status})", remedy)
    if answer.status in {502, 503, 504} and not ours:
        remedy = "look at the proxy's upstream address, and whether the service runs"
        return fail("proxy", f"it does not reach the service ({answer.status})", remedy)
    if answer.status != 200 or not ours:
        return fail("proxy", f"what answers is not Tailrace ({answer.status})", "look at the proxy's routes")
    return ok("proxy", f"the service answers at {address.url}")


def _headers(address: Address, settings: "Settings") -> list[Finding]:
    findings = []
    outside = not is_loopback(address.host)
    if outside and not address.secure:
        said = "clients come without TLS: whoever is on the way reads keys, and everything else"
        findings.append(warn("proxy", said, "the lines for TLS in docs/proxies"))
    if outside and not settings.behind_proxy:
        said = "no proxy is trusted: all clients count as one address, the proxy's"
        remedy = (
            "TAILRACE_BEHIND_PROXY=its address; let it set X-Forwarded-For and -Proto (docs/operations.md)"
        )
        findings.append(warn("proxy", said, remedy))
    return findings


async def _forwarded(address: Address, settings: "Settings", key: str | None) -> list[Finding]:
    """Send what a client could make up, and see whether the service, which believes proxies, believes it."""
    if not settings.behind_proxy:
        return []
    findings = []
    if address.secure:
        # To a page without TLS the service is closed, once it knows that its clients come with it.
        origin = f"Origin: http://{address.authority}"
        answer = await _answer(address, head_of(address, "GET", "/health", origin))
        if answer.status == 200:
            said = "the service does not learn that clients come by TLS: its sessions are not kept to it"
            remedy = "let the proxy set X-Forwarded-Proto, and name it in TAILRACE_BEHIND_PROXY"
            findings.append(fail("proxy", said, remedy))
    if key is None:
        said = "whether the proxy sets X-Forwarded-For itself was not looked at"
        return [*findings, warn("proxy", said, "give a key in TAILRACE_KEY, with the right read")]
    seen = await _seen_as(address, key)
    if seen == MADE_UP:
        said = "the service believes an X-Forwarded-For that the client made up: limits by address are void"
        findings.append(fail("proxy", said, "let the proxy set it, not add to it: docs/operations.md"))
    elif seen is None:
        said = "the service could not be asked by which address it knows us"
        findings.append(
            warn("proxy", said, "a key with the right read in TAILRACE_KEY; no auth of the proxy")
        )
    else:
        findings.append(ok("proxy", f"the service knows us as {seen or 'a client of this machine'}"))
    return findings


async def _seen_as(address: Address, key: str) -> str | None:
    """Return the address under which the service counts a stream of ours, empty for its own machine's."""
    asking = Address(address.url, key)
    run_id = f"doctor-{token_hex(8)}"  # nobody has it: the stream waits, and is in the list meanwhile
    stream = head_of(
        asking, "GET", asking.target(f"/workflows/runs/{run_id}/stream", {"wait": "5s"}),
        f"X-Forwarded-For: {MADE_UP}",
    )  # fmt: skip
    async with _connected(asking) as (_, writer):
        writer.write(stream)
        for _ in range(LOOKS):
            await asyncio.sleep(TIMEOUT_S / LOOKS / 2)
            try:
                page = json.loads(await request(asking, "GET", asking.target("/streams", {"runId": run_id})))
            except (Refused, Unreachable, ValueError):
                return None
            if page["data"]:
                return str(page["data"][0]["address"])
    return None


async def _upgrade(address: Address) -> Finding:
    lines = [
        f"GET {STREAM} HTTP/1.1",
        f"Host: {address.authority}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        *(f"{name}: {value}" for name, value in address.headers.items()),
    ]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "\r\n"]
    try:
        status = (await _answer(address, "\r\n".join(lines).encode())).status
    except (OSError, EOFError, ValueError) as error:
        return fail("proxy", f"a WebSocket does not get through: {why(error)}", "see docs/proxies")
    if status == 101:
        return ok("proxy", "WebSockets get through")
    return fail(
        "proxy",
        f"a WebSocket does not get through ({status})",
        "hand on Upgrade and Connection: docs/proxies",
    )


async def _answer(address: Address, sent: bytes) -> _Answer:
    async with asyncio.timeout(TIMEOUT_S), _connected(address) as (reader, writer):
        writer.write(sent)
        status, _, headers = await answer_head(reader)
        return _Answer(status, headers)


@asynccontextmanager
async def _connected(address: Address) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=address.tls)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()  # to close it would wait for the other side's part of TLS
