"""What a connection offers to those who write to many: ready bytes at once, and an application that sleeps.

An application that has nothing to do waits in ``receive``, which costs no task, and is woken from there.
"""

from typing import Protocol

PARKING = "tailrace.parking"  # in scope["extensions"] of our WebSocket protocol; the value is a Parking
WOKEN = "tailrace.woken"  # the type of the message that ``receive`` then returns


class Parking(Protocol):
    """A WebSocket whose application may be parked."""

    def push(self, frames: bytes | memoryview) -> bool:
        """Write ``frames``, or return False, having written nothing, if the client cannot take them now."""
        ...

    def push_some(self, frames: memoryview) -> int:
        """Write as much of ``frames`` as the kernel takes now, and return how many bytes.

        They may end within a frame: then its rest must be sent next, before anything is waited for.
        """
        ...

    def wake(self) -> None:
        """Make ``receive`` return a message of type ``WOKEN``."""
        ...
