"""Answers that their clients do not take: how much they are together, and who is cut off when it is too much.

An answer is written as a whole, so it is in memory until its client has it.
"""

from service.wire.outgoing import STALLED, Outgoing

UNREAD_BYTES_MAX = 256 * 1024 * 1024
LARGE_BYTES = 256 * 1024  # a stream never has so much in flight: its readers are not meant


class Unread:
    """Counts the large answers that wait for their clients, of all connections together."""

    def __init__(self, bytes_max: int = UNREAD_BYTES_MAX) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._of: dict[Outgoing, int] = {}

    def waits(self, outgoing: Outgoing) -> None:
        """Count what waits there; where that is too much, cut off who has taken nothing for longest."""
        self.taken(outgoing)
        size = outgoing.transport.get_write_buffer_size()
        if size < LARGE_BYTES:
            return
        outgoing.moved_at()  # from now on it knows whether its client takes something
        self._of[outgoing] = size
        self.bytes += size
        while self.bytes > self._bytes_max:
            idle = min(self._of, key=Outgoing.moved_at)
            self.taken(idle)
            idle.gave_up = STALLED
            idle.cut_off()

    def taken(self, outgoing: Outgoing) -> None:
        """Count nothing for it any more: its client has everything, or is gone."""
        self.bytes -= self._of.pop(outgoing, 0)
