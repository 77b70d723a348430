"""Every attack, with its figures: what CI makes of it in the tests here, and what ``scripts/torture`` does."""

from collections.abc import Callable

from msgspec import Struct

from tests.attacks import (
    any_request,
    canaries,
    clock,
    commands,
    descriptors,
    half_open,
    http_bytes,
    inside,
    openapi,
    readers,
    results,
    ws_frames,
)


class Attack(Struct, frozen=True):
    """``run(count, seed)`` returns the faults it has found; ``count`` is of ``unit``."""

    run: Callable[[int, int], list[str]]
    unit: str
    ci: int
    large: int
    why_not: Callable[[], str | None] = lambda: None  # why it cannot be made here


ATTACKS = {
    "readers": Attack(readers.run, "healthy readers, and a tenth as many slow and stuck ones", 200, 1_000),
    "half-open": Attack(half_open.run, "lost clients of each kind", 5, 200, half_open.why_not),
    "http-bytes": Attack(http_bytes.run, "requests", 2_000, 50_000),
    "ws-frames": Attack(ws_frames.run, "frames", 4_000, 100_000),
    "any-request": Attack(any_request.run, "requests", 2_000, 25_000),
    "openapi": Attack(openapi.run, "cases", 500, 25_000, openapi.why_not),
    "commands": Attack(commands.run, "commands under each containment", 22, 1_000, commands.why_not),
    "output": Attack(commands.pour, "GiB of output", 1, 10),
    "canaries": Attack(canaries.run, "secrets, each shown in 43 ways", 4, 200),
    "results": Attack(results.run, "runs over what no step expects", 300, 10_000),
    "inside": Attack(inside.run, "spellings of inner addresses, each in four ways", 250, 5_000),
    "descriptors": Attack(descriptors.run, "times without a file descriptor", 2, 100),
    "clock": Attack(clock.run, "jumps of the clock under load, drains among them", 3, 100, clock.why_not),
}
