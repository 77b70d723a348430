"""The files of the room ``web`` at their addresses: what pages and programs of others load from us."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from litestar import Response, get

from service.api.requests import AnyRequest
from service.api.rights import PUBLIC, needs

_WEB = Path(__file__).parent.parent / "web"
CLIENT = (_WEB / "client.js").read_bytes()
LOGIN = (_WEB / "login.html").read_bytes()
_ETAG = f'"{sha256(CLIENT).hexdigest()[:32]}"'
# no-cache: kept, but asked about before each use, so that the client always fits the service. And what was
# kept for our own page must not do for one of another origin, which the answer has to name (gate.py).
_CLIENT_HEADERS = {"etag": _ETAG, "cache-control": "no-cache", "vary": "origin"}


@get("/client.js", opt=needs(PUBLIC))
async def client(request: AnyRequest) -> Response[bytes]:
    """Return the JavaScript client, an ES module; 304 to who has it already."""
    known = request.headers.get("if-none-match", "")
    if _ETAG in (each.strip().removeprefix("W/") for each in known.split(",")):
        return Response(b"", status_code=304, headers=_CLIENT_HEADERS)
    return Response(CLIENT, media_type="text/javascript", headers=_CLIENT_HEADERS)


def page_headers(page: bytes) -> dict[str, str]:
    """Return what a browser is told of a page of ours: to run and to show what is in it, and nothing else.

    Its inline script and style are named by their hashes (CSP Level 3 §2.3.1), so that nothing that finds its
    way into the page can run; and no other page may frame it.
    """
    scripts, styles = (" ".join(_hashes(page, tag)) or "'none'" for tag in (b"script", b"style"))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {"content-security-policy": policy, "referrer-policy": "no-referrer", "cache-control": "no-cache"}


def _hashes(page: bytes, tag: bytes) -> list[str]:
    inline = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
    return [f"'sha256-{b64encode(sha256(each).digest()).decode()}'" for each in inline]


@get("/login", opt=needs(PUBLIC))
async def login() -> Response[bytes]:
    """Return the page where a person logs in with a key."""
    return Response(LOGIN, media_type="text/html", headers=page_headers(LOGIN))
