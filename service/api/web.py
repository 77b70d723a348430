"""The files of the room ``web`` at their addresses: what pages and programs of others load from us."""

from hashlib import sha256
from pathlib import Path

from litestar import Response, get

from service.api.requests import AnyRequest

CLIENT = (Path(__file__).parent.parent / "web/client.js").read_bytes()
_ETAG = f'"{sha256(CLIENT).hexdigest()[:32]}"'
# no-cache: kept, but asked about before each use, so that the client always fits the service. And what was
# kept for our own page must not do for one of another origin, which the answer has to name (gate.py).
_HEADERS = {"etag": _ETAG, "cache-control": "no-cache", "vary": "origin"}


@get("/client.js")
async def client(request: AnyRequest) -> Response[bytes]:
    """Return the JavaScript client, an ES module; 304 to who has it already."""
    known = request.headers.get("if-none-match", "")
    if _ETAG in (each.strip().removeprefix("W/") for each in known.split(",")):
        return Response(b"", status_code=304, headers=_HEADERS)
    return Response(CLIENT, media_type="text/javascript", headers=_HEADERS)
