"""Which runs are not over, out of the log itself: for a start whose views have to be made first."""

from typing import NamedTuple

import msgspec
import structlog

from service.domain.events import RunComplete, RunStart, started_by
from service.log import Log
from service.log.follow import walk_all

TYPES = (RunStart.type, RunComplete.type)

diagnostics = structlog.get_logger("tailrace.projection")


class Unfinished(NamedTuple):
    """The runs without a seal, oldest first, as of ``position`` in the log: follow on from there.

    ``owners``: who started each.
    """

    owners: dict[str, str | None]
    position: int


async def unfinished_in(log: Log) -> Unfinished:
    """Return the runs that go on, from each one's first and last event: a tenth of what views are made from.

    What is damaged or not understood is left out. Raises LogUnavailable.
    """
    owners: dict[str, str | None] = {}
    position = head = await log.wait(None, after=-1)
    async for page in walk_all(log, upto=head, types=TYPES):
        for event in page:
            run_id = event.stream.partition("/")[2]
            if event.type == RunComplete.type:
                owners.pop(run_id, None)
                continue
            try:
                owners[run_id] = started_by(event.data)
            except msgspec.MsgspecError as error:
                diagnostics.error("run not understood", run_id=run_id, reason=str(error))
        position = max(head, page[-1].position)
    return Unfinished(owners, position)
