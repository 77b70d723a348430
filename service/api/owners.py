"""Whose a run is: who started it sees it, and so does an admin; to anyone else it is not there."""

from collections.abc import Awaitable, Callable

from service.access import Grant
from service.errors import NotFound
from service.repository import Repository

OWNERS_KEPT = 50_000  # in memory; a run's owner never changes

MaySee = Callable[[Grant, str], Awaitable[bool]]


class Owners:
    """Knows the owner of each run, from the run's header."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[str, str | None] = {}

    async def may_see(self, grant: Grant, run_id: str) -> bool:
        """Tell whether the run is visible to ``grant``; of a run that is not there only an admin may know.

        Raises Damaged, LogUnavailable.
        """
        if grant.sees_all:
            return True
        try:
            return await self.owner(run_id) == grant.name
        except NotFound:
            return False

    async def owner(self, run_id: str) -> str | None:
        """Return the name of who started the run, None if nobody is recorded. Raises NotFound, as above."""
        if run_id in self._known:
            return self._known[run_id]
        header = await self._repository.run_header(run_id)
        by = header.start.trigger.get("by")
        if len(self._known) >= OWNERS_KEPT:
            del self._known[next(iter(self._known))]
        self._known[run_id] = by if isinstance(by, str) else None
        return self._known[run_id]


async def sees_all(_grant: Grant, _run_id: str) -> bool:
    """Tell that everything is visible."""
    return True
