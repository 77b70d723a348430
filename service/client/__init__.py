"""The client of a service, for programs in Python: asks over HTTP, watches over WebSocket.

    client = Client("http://127.0.0.1:8080")
    accepted = await client.execute("nightly", {"day": "2026-01-31"})
    watch = client.watch(accepted["runId"])
    async for event in watch:
        print(event.seq, event.type, event.payload)
    print(watch.status, watch.summary)  # success 10 of 10 events

Knows the public API and none of the rooms behind it. What only a watch needs is imported when there is one.
"""

import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

from service.client.backoff import Backoff
from service.client.errors import ClientError, Inconsistent, Refused, Unreachable
from service.client.http import Address, request, segment, understood
from service.client.sequence import Event, Sequence

if TYPE_CHECKING:
    from service.client.watch import Watch

__all__ = ["Backoff", "Client", "ClientError", "Event", "Inconsistent", "Refused", "Unreachable", "segment"]

CONFLICT = 409
ENDS = {"run_start", "run_complete"}  # a run's header and its seal


class Client:
    """A service at ``url`` (``http://host:port``, a path in front of the API is kept).

    Between its calls it holds nothing open, so there is nothing to close, and one may serve many tasks.
    ``key``: where the service asks for one. ``backoff`` says how lost streams are taken up. Raises ValueError
    for anything that is no such address.

    Each request is sent once, takes at most 30 s, and raises Refused or Unreachable. After Unreachable it is
    open whether the service did it: ask again, which is safe for all but an ``execute`` without a ``run_id``.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8080", *, key: str | None = None, backoff: Backoff | None = None
    ) -> None:
        self._address = Address(url, key)
        self._backoff = backoff or Backoff()

    # Workflows and runs

    async def save(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """Create ``{workflowId, name?, description?, definition}``, or replace what has its id."""
        try:
            answer = await self.request("POST", "/workflows", body=workflow)
        except Refused as refused:
            if refused.status != CONFLICT:
                raise
            path = f"/workflows/{segment(str(workflow['workflowId']))}"
            answer = await self.request("PUT", path, body=workflow)
        return self.document(answer, "workflowId", "version")

    async def execute(
        self, workflow_id: str, variables: dict[str, Any] | None = None, *, run_id: str | None = None
    ) -> dict[str, Any]:
        """Start a run and return ``{runId, workflowId, status, startTime}``, without waiting for the run.

        ``variables`` override those of the definition. Repeated with the same ``run_id`` of yours it is the
        same run.
        """
        body = {"variables": variables or {}, **({} if run_id is None else {"runId": run_id})}
        answer = await self.request("POST", f"/workflows/{segment(workflow_id)}/execute", body=body)
        return self.document(answer, "runId", "status")

    async def cancel(self, run_id: str, *, reason: str | None = None) -> dict[str, Any]:
        """Ask for a run to be cancelled; its events tell when it is. Refused (409) once it is over."""
        body = {} if reason is None else {"reason": reason}
        answer = await self.request("POST", f"/workflows/runs/{segment(run_id)}/cancel", body=body)
        return self.document(answer, "runId", "status")

    # Events

    def watch(
        self,
        run_id: str,
        *,
        after: int | Literal["tail"] | None = None,
        types: Literal["all"] | Collection[str] | None = None,
        step_id: str | None = None,
        level: str | None = None,
        wait_s: float = 0.0,
        live: bool = True,
        notice: Callable[[str], None] = lambda _: None,
    ) -> "Watch":
        """Return the run's events from the first on, those to come included, to its end.

        Args:
            run_id: The run.
            after: Only events with a seq above this one; ``tail``: only new ones; ``-n``: from the last n on.
            types: Only these; ``all``: those of the steps and, as first and last, the run's header and seal;
                None: those of the steps. A watch of ``all`` from the start verifies the run's hash.
            step_id: Only events of this step.
            level: Of ``step_log`` only ``debug``, ``info``, ``warn`` or ``error`` and what is graver.
            wait_s: How long the run may take to exist, at most 300.
            live: False: only what has happened so far, without waiting for more.
            notice: Is told, in words, of each connection that was lost and when it is taken up.
        """
        from service.client.watch import Watch

        listed = types if types is None or isinstance(types, str) else ",".join(types)
        query = {
            "types": listed,
            "stepId": step_id,
            "level": level,
            "wait": round(wait_s * 1000) or None,
        }
        sequence = Sequence(
            run_id,
            -1 if after is None else after if after == "tail" or after >= 0 else str(after),
            ends=listed == "all" or not ENDS.isdisjoint((listed or "").split(",")),
            filtered=listed not in {None, "all"} or step_id is not None or level is not None,
        )
        return Watch(self._address, run_id, sequence, query, live=live, backoff=self._backoff, notice=notice)

    # Anything else: paths are those of /schema, behind /api/v2

    async def get(self, path: str, **query: object) -> Any:
        """Return the JSON document at ``path``."""
        return self._read(await self.request("GET", path, query=query))

    async def post(self, path: str, body: object = None) -> Any:
        """Send ``body`` (None: no body) and return the answer."""
        return self._read(await self.request("POST", path, body=body) or b"null")

    async def put(self, path: str, body: object) -> Any:
        """Replace what is at ``path`` and return the answer."""
        return self._read(await self.request("PUT", path, body=body) or b"null")

    async def request(
        self, method: str, path: str, *, body: object = None, query: Mapping[str, object] | None = None
    ) -> bytes:
        """Return the answer to one request as the service sent it; what is None in ``query`` is left out."""
        return await request(self._address, method, self._address.target(path, query or {}), body)

    def document(self, answer: bytes, *members: str) -> dict[str, Any]:
        """Return the JSON object that is ``answer``. Raises Unreachable where it lacks any of ``members``."""
        with self.understood():
            document: dict[str, Any] = json.loads(answer)
            if missing := set(members).difference(document.keys()):
                raise LookupError(missing)
        return document

    def understood(self) -> AbstractContextManager[None]:
        """Read an answer within: one of another form than the service's raises Unreachable."""
        return understood(self._address)

    def download(
        self, method: str, path: str, *, accept: str, query: Mapping[str, object] | None = None
    ) -> AsyncIterator[list[bytes]]:
        """Yield the lines of an answer of any length, as many at a time as have come."""
        from service.client.download import download

        return download(self._address, method, self._address.target(path, query or {}), accept)

    def _read(self, answer: bytes) -> Any:
        with self.understood():
            return json.loads(answer)
