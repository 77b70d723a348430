"""How many HTTP connections each address has; one that becomes a WebSocket is counted as a stream instead."""

from collections import Counter
from collections.abc import Callable


class Connections:
    """Takes up to ``per_address_max`` (0: any number) of an address, as ``counted`` names it (empty: not)."""

    def __init__(self, per_address_max: int, counted: Callable[[str], str]) -> None:
        self._per_address_max = per_address_max
        self._counted = counted
        self._of_address: Counter[str] = Counter()

    def take(self, peer: str) -> str | None:
        """Count one more of ``peer``; return what to ``leave`` when it is over, None if there are enough."""
        address = self._counted(peer) if self._per_address_max else ""
        if address:
            if self._of_address[address] >= self._per_address_max:
                return None
            self._of_address[address] += 1
        return address

    def leave(self, address: str) -> None:
        """Count one less."""
        if address:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]
