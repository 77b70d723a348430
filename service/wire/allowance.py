"""How much a client may say to a stream that does not listen."""

from collections.abc import Callable

CLIENT_FRAME_BYTES_MAX = 4 * 1024
CLIENT_FRAMES_MAX = 256  # per window, control frames included
WINDOW_S = 10.0


class Allowance:
    """Counts a client's frames over a window; ``now`` is a monotonic clock in seconds."""

    __slots__ = ("_frames", "_now", "_window_began_at")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._window_began_at = now()
        self._frames = 0

    @property
    def over(self) -> bool:
        """Tell whether the window has passed: the next one begins with the next frame."""
        return self._now() - self._window_began_at >= WINDOW_S

    def spend(self) -> bool:
        """Count one frame and tell whether the client is still within its allowance."""
        if self.over:
            self._window_began_at = self._now()
            self._frames = 0
        self._frames += 1
        return self._frames <= CLIENT_FRAMES_MAX
