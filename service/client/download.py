"""An answer that is too long to be kept: its lines, as they come."""

import asyncio
from asyncio import StreamReader
from collections.abc import AsyncIterator

from service.client.errors import Unreachable, refusal
from service.client.http import Address, answer_head, head_of, why

SILENCE_TIMEOUT_S = 60.0  # without a byte, after which the connection counts as lost
READ_BYTES = 256 * 1024
PROBLEM_BYTES_MAX = 1024 * 1024


async def download(address: Address, method: str, target: str, accept: str) -> AsyncIterator[list[bytes]]:
    """Yield the lines of the answer to a request without a body, as many at a time as there are.

    A last line without its end is left out: it is for the caller to know by its content that all has come.
    Raises Refused, and Unreachable when the connection is lost or silent.
    """
    connection: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(SILENCE_TIMEOUT_S):
            reader, connection = await asyncio.open_connection(
                address.host, address.port, ssl=address.secure or None, limit=READ_BYTES
            )
            connection.write(head_of(address, method, target, f"Accept: {accept}", "Content-Length: 0"))
            status, reason, headers = await answer_head(reader)
        pieces = _pieces(reader, chunked=headers.get("transfer-encoding", "").lower() == "chunked")
        if status >= 400:
            body = b"".join([piece async for piece in pieces])
            raise refusal(status, reason, body[:PROBLEM_BYTES_MAX], headers.get("retry-after"))
        rest = b""
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            if lines:
                yield lines
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        raise Unreachable(f"{address.url} does not answer: {why(error)}") from error
    finally:
        if connection is not None:
            connection.close()


async def _pieces(reader: StreamReader, *, chunked: bool) -> AsyncIterator[bytes]:
    left = 0
    while True:
        async with asyncio.timeout(SILENCE_TIMEOUT_S):
            if chunked and not left:
                left = int((await reader.readline()).partition(b";")[0], 16)
                if not left:
                    return
            piece = await reader.read(min(left, READ_BYTES) if chunked else READ_BYTES)
            if not piece:
                if chunked:
                    raise EOFError
                return
            if chunked:
                left -= len(piece)
                if not left:
                    await reader.readline()
        yield piece
