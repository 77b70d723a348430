"""The route of open streams: who reads what, and how far behind."""

from itertools import islice
from time import monotonic

from litestar import Response, get
from msgspec import Struct

from service.api.context import context_of
from service.api.filters import as_cursor
from service.api.readers import Reader
from service.api.requests import LIMIT_DEFAULT, AnyRequest, answer, as_id, as_limit, read_query
from service.api.rights import caller, needs
from service.log import Log


class StreamRow(Struct, frozen=True, rename="camel"):
    """An open stream. ``open_for`` in ms; ``lag``: events behind the run's newest.

    ``phase``: ``opening`` until the run has been found, ``replaying`` what was there then, ``live``.
    ``after``: behind which seq the client goes on (None: before the first).
    """

    id: int
    run_id: str
    user: str
    address: str
    form: str
    phase: str
    after: int | None
    last_seq: int | None
    lag: int | None
    open_for: int


class StreamPage(Struct, frozen=True, rename="camel"):
    """Open streams, the oldest first; ``total`` counts all that the caller may see."""

    data: list[StreamRow]
    total: int
    limit: int
    next_cursor: int | None


@get("/streams", opt=needs("read"))
async def list_streams(request: AnyRequest) -> Response[bytes]:
    """List the streams that are open now: one's own, or all of them for an admin."""
    query = read_query(request, limit=as_limit, cursor=as_cursor, runId=as_id)
    context, grant, run_id = context_of(request), caller(request), query.get("runId")
    limit = query.get("limit", LIMIT_DEFAULT)
    # There may be tens of thousands, and this is asked for every few seconds: none is looked at twice.
    visible = list(context.readers)
    if not grant.sees_all:
        visible = [reader for reader in visible if reader.grant.name == grant.name]
    if run_id is not None:
        visible = [reader for reader in visible if reader.run_id == run_id]
    after = query.get("cursor", 0)
    following = list(islice((reader for reader in visible if reader.id > after), limit + 1))
    rows = [await _row(context.log, reader) for reader in following[:limit]]
    cursor = rows[-1].id if len(following) > limit else None
    return answer(StreamPage(rows, len(visible), limit, cursor), headers={"cache-control": "no-store"})


async def _row(log: Log, reader: Reader) -> StreamRow:
    # Before it has begun it may wait for a run that is there, and not its own.
    head = -1 if reader.place is None else await log.wait(f"run/{reader.run_id}", after=-2)
    after = None if reader.place is None else reader.place.after
    lag = None if after is None else max(0, head - after)
    return StreamRow(
        id=reader.id,
        run_id=reader.run_id,
        user=reader.grant.name,
        address=reader.address,
        form=reader.form,
        phase=reader.phase,
        after=after if after is None or after >= 0 else None,
        last_seq=head if head >= 0 else None,
        lag=lag,
        open_for=int((monotonic() - reader.began_at) * 1000),
    )
